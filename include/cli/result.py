"""What a goal run brought: the merged commits, a verdict a task, the cost, the time, and where to look."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from include.cli.progress import OFFLINE, money
from include.repository import as_person
from include.settings import Settings

_GOAL_FIELDS = (
    "goal run dag_id run_id state reason title repository base_branch goal_branch base_commit landed_commit landing_note agent landing "
    "budget_micro spent_micro tokens offline wall_s created_at ended_at deadline_at"
).split()
_TASK_FIELDS = "key title state reason epoch step rung merged_commit spent_micro tokens".split()


def commits(row: dict[str, Any]) -> list[str]:
    """The commits that landed on the base branch, newest first, as ``git log --oneline`` shows them."""
    if not row["landed_commit"] or not row["base_commit"]:
        return []
    found = as_person.commits_between(Path(row["repository_path"]), row["base_commit"], row["landed_commit"])
    return [f"{row['landed_commit'][:12]} (not readable in {row['repository_path']})"] if found is None else found


def address(settings: Settings, row: dict[str, Any]) -> str:
    """The goal run in Airflow's UI."""
    return f"{settings.api_url}/dags/{quote(row['dag_id'])}/runs/{quote(row['run_id'], safe='')}"


def text(settings: Settings, row: dict[str, Any]) -> str:
    """The closing report for a person."""
    parts = [f"Goal {row['state']}: {row['title']}" + (f"\n  {row['reason']}" if row["reason"] else "")]
    if landed := commits(row):
        parts.append(f"Merged into {row['base_branch']} of {row['repository_path']}:\n" + "\n".join(f"  {line}" for line in landed))
    if row["landing_note"]:
        parts.append(row["landing_note"])
    if row["verdicts"]:
        parts.append("Verdicts:\n" + "\n".join(_verdict(verdict) for verdict in row["verdicts"]))
    if row["notices"]:
        parts.append("Notices:\n" + "\n".join(f"  {notice['kind']}: {notice['words']}" for notice in row["notices"]))
    parts += [f"  {task['key']}: {task['state']}. {task['reason']}" for task in row["tasks"] if task["state"] in ("FAILED", "ESCALATED")]
    model = f"; model: {OFFLINE}" if row["offline"] else ""
    parts.append(f"Cost {money(row['spent_micro'])}, {row['tokens']} tokens{model}; {row['wall_s']:.0f} s from submission to end.")
    parts.append(f"DAG   {settings.api_url}/dags/{quote(row['dag_id'])}\nGoal  {address(settings, row)}")
    return "\n".join(parts)


def _verdict(verdict: dict[str, Any]) -> str:
    subject = f"{verdict['key']} attempt {verdict['epoch']}" if verdict["key"] else "landing"
    findings = "; ".join(str(finding.get("message", finding)) for finding in verdict["findings"] or [])
    return f"  {'green' if verdict['green'] else 'red  '}  {subject}" + (f": {findings}" if findings and not verdict["green"] else "")


def public(settings: Settings, row: dict[str, Any]) -> dict[str, Any]:
    """The run as ``--json`` prints it (docs/cli.md)."""
    return {
        **{name: row[name] for name in _GOAL_FIELDS},
        "tasks": [{name: task[name] for name in _TASK_FIELDS} for task in row["tasks"]],
        "verdicts": row["verdicts"],
        "notices": row["notices"],
        "commits": commits(row),
        "url": address(settings, row),
    }


def plain(value: Any) -> Any:
    """What ``json`` does not know by itself: times and ids become text."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be printed as JSON")
