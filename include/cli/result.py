"""What a goal run brought: the merged commits, a verdict a task, the cost, the time, and where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from include.cli.progress import OFFLINE, money
from include.repository import as_person
from include.settings import Settings
from include.tasks.models import TaskRunState
from include.views.models import GoalHead, GoalView, VerdictView

_ENDED_BADLY = (TaskRunState.FAILED, TaskRunState.ESCALATED)


def commits(goal: GoalHead) -> list[str]:
    """List the commits that landed on the base branch, newest first, as ``git log --oneline`` shows them."""
    if not goal.landed_commit or not goal.base_commit:
        return []
    found = as_person.commits_between(Path(goal.repository_path), goal.base_commit, goal.landed_commit)
    return [f"{goal.landed_commit[:12]} (not readable in {goal.repository_path})"] if found is None else found


def address(settings: Settings, goal: GoalHead) -> str:
    """Name the page of the goal run in Airflow's UI."""
    return f"{settings.api_url}/dags/{quote(goal.dag_id)}/runs/{quote(goal.run_id, safe='')}"


def text(settings: Settings, goal: GoalView) -> str:
    """Write the closing report for a person."""
    parts = [f"Goal {goal.state}: {goal.title}" + (f"\n  {goal.reason}" if goal.reason else "")]
    if landed := commits(goal):
        parts.append(f"Merged into {goal.base_branch} of {goal.repository_path}:\n" + "\n".join(f"  {line}" for line in landed))
    if goal.landing_note:
        parts.append(goal.landing_note)
    if goal.verdicts:
        parts.append("Verdicts:\n" + "\n".join(_verdict(verdict) for verdict in goal.verdicts))
    if goal.notices:
        parts.append("Notices:\n" + "\n".join(f"  {notice.kind}: {notice.words}" for notice in goal.notices))
    parts += [f"  {task.key}: {task.state}. {task.reason}" for task in goal.tasks if task.state in _ENDED_BADLY]
    model = f"; model: {OFFLINE}" if goal.offline else ""
    parts.append(f"Cost {money(goal.spent_micro)}, {goal.tokens} tokens{model}; {goal.wall_s:.0f} s from submission to end.")
    parts.append(f"DAG   {settings.api_url}/dags/{quote(goal.dag_id)}\nGoal  {address(settings, goal)}")
    return "\n".join(parts)


def _verdict(verdict: VerdictView) -> str:
    subject = f"{verdict.key} attempt {verdict.epoch}" if verdict.key else "landing"
    findings = "; ".join(finding.message for finding in verdict.findings)
    return f"  {'green' if verdict.green else 'red  '}  {subject}" + (f": {findings}" if findings and not verdict.green else "")


def public(settings: Settings, goal: GoalView) -> dict[str, Any]:
    """Make of the run what ``--json`` prints (docs/cli.md)."""
    shown = goal.model_dump(exclude={"repository_path": True, "tasks": {"__all__": {"attempt_state"}}})
    return {**shown, "commits": commits(goal), "url": address(settings, goal)}
