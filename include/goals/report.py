"""The end of a goal run: what still lives is revoked, every task run gets its true end, and the story is told in a few lines."""

from __future__ import annotations

from typing import Any

from include.database.unit_of_work import Connection
from include.goals import service
from include.leases import incidents
from include.leases import service as leases
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, Failure, GoalRunState, TaskRunState

_UNFINISHED = "it did not finish: one of its steps failed, was skipped or was marked in Airflow (the step's log says which)"


def close(connection: Connection, settings: Settings, dag_id: str, run_id: str, unfinished: str = _UNFINISHED) -> str:  # noqa: ARG001 - one shape for all services of steps
    """Bring a goal run to its end, once; called again it only tells.

    Args:
        dag_id: of the goal.
        run_id: Airflow's.
        unfinished: why what has not finished never will.

    Returns:
        The summary, some lines of plain text.
    """
    run = service.run_of(connection, dag_id, run_id)
    for row in tasks.of_goal_run(connection, run["id"]):  # locked before the leases, as everywhere
        _settle(connection, row, unfinished)
    leases.revoke_goal_run(connection, run["id"], "the goal run has ended")
    if run["state"] not in ENDED_RUNS:
        state, reason = _end_of(run, tasks.of_goal_run(connection, run["id"]))
        service.set_state(connection, run["id"], state, reason)
        run = service.run_of(connection, dag_id, run_id)
    return _tell(connection, run)


def _settle(connection: Connection, row: dict[str, Any], words: str) -> None:
    if row["state"] in ("COMPLETED", "FAILED", "ESCALATED", "CANCELLED"):
        return
    if row["epoch"]:
        tasks.end_attempt(connection, row["id"], row["epoch"], Failure.PERSON, words, counted=False)
    tasks.set_state(connection, row["id"], TaskRunState.CANCELLED, words)


def _end_of(run: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[GoalRunState, str]:
    """COMPLETED is set by the landing and by nothing else; here a goal only ends without one."""
    if run["landed_commit"] and run["state"] == GoalRunState.LANDING:
        return GoalRunState.COMPLETED, ""
    for state in (GoalRunState.ESCALATED, GoalRunState.FAILED):
        told = [f"{row['key']}: {row['reason']}" for row in rows if row["state"] == state]
        if told:
            return state, "; ".join(told)
    if run["state"] == GoalRunState.LANDING:
        return (
            GoalRunState.ESCALATED,
            f"all tasks are merged on {run['goal_branch']}, but the landing did not finish; the log of the step land says why",
        )
    told = [f"{row['key']}: {row['reason']}" for row in rows if row["state"] != TaskRunState.COMPLETED and row["reason"]]
    if rows and not told:
        told = [f"{len(rows)} tasks are merged on {run['goal_branch']}, and it ended in Airflow before it landed"]
    return GoalRunState.CANCELLED, run["reason"] or "; ".join(told) or "it ended before all tasks were merged"


def _tell(connection: Connection, run: dict[str, Any]) -> str:
    lines = [f"{run['title']}: {run['state']}" + (f" ({run['reason']})" if run["reason"] else "")]
    for row in service.summary(connection, run["id"]):
        merged = f" as {row['merged_commit'][:12]}" if row["merged_commit"] else ""
        tries = "1 attempt" if row["attempts"] == 1 else f"{row['attempts']} attempts"
        cost = f"{tries}, {row['tokens']} tokens, ${row['spent_micro'] / 1e6:.4f}{' (offline playbook)' if row['offline'] else ''}"
        lines.append(f"  {row['key']}: {row['state']}{merged}, {cost}" + (f": {row['reason']}" if row["reason"] else ""))
    lines += [f"  {notice['kind']}: {notice['words']}" for notice in incidents.notices(connection, run["id"])]
    if run["landed_commit"]:
        lines.append(f"Landed on {run['base_branch']} as {run['landed_commit'][:12]}. {run['landing_note']}".rstrip())
    elif run["base_commit"]:
        lines.append(f"Nothing landed; the branch {run['goal_branch']} is kept.")
    return "\n".join(lines)
