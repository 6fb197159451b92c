"""What a goal run brought: the merged commits, a verdict a task, the cost, the time, and where to look."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from include import inert
from include.cli.progress import OFFLINE, money
from include.repository import as_person
from include.settings import Settings
from include.tasks.models import TaskRunState
from include.views.models import GoalHead, GoalLine, GoalView, VerdictView

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


def lines(settings: Settings, goal: GoalView) -> list[str]:
    """Write the closing report for a person, in inert lines: no text of a goal or repository makes a line of its own."""
    said = [f"Goal {goal.state}: {goal.title}", *([f"  {goal.reason}"] if goal.reason else [])]
    if landed := commits(goal):
        said += [f"Merged into {goal.base_branch} of {goal.repository_path}:", *(f"  {line}" for line in landed)]
    if goal.landing_note:
        said.append(goal.landing_note)
    if goal.verdicts:
        said += ["Verdicts:", *(line for verdict in goal.verdicts for line in _verdict(verdict))]
    if goal.notices:
        said += ["Notices:", *(f"  {notice.kind}: {notice.words}" for notice in goal.notices)]
    said += [f"  {task.key}: {task.state}. {task.reason}" for task in goal.tasks if task.state in _ENDED_BADLY]
    model = f"; model: {OFFLINE}" if goal.offline else ""
    said.append(f"Cost {money(goal.spent_micro)}, {goal.tokens} tokens{model}; {goal.wall_s:.0f} s from submission to end.")
    said += [f"DAG   {settings.api_url}/dags/{quote(goal.dag_id)}", f"Goal  {address(settings, goal)}"]
    return [inert.line(line) for line in said]


def _verdict(verdict: VerdictView) -> list[str]:
    """The verdict, and below it a line for each expectation that did not hold."""
    subject = f"{verdict.key} attempt {verdict.epoch}" if verdict.key else "landing"
    findings = () if verdict.green else verdict.findings
    told = [f"         {finding.expectation}: {inert.words(finding.message)}" for finding in findings]
    return [f"  {'green' if verdict.green else 'red  '}  {subject}", *told]


def row(goal: GoalLine) -> str:
    """Write a goal as a line of the list."""
    return inert.line(f"{goal.run or '-':14} {goal.state or '-':18} {goal.repository:16} {goal.created_at:%Y-%m-%d %H:%M}  {goal.title}")


def public(settings: Settings, goal: GoalView) -> dict[str, Any]:
    """Make of the run what ``--json`` prints (docs/cli.md)."""
    shown = goal.model_dump(exclude={"repository_path": True, "tasks": {"__all__": {"attempt_state"}}})
    return {**shown, "commits": commits(goal), "url": address(settings, goal)}
