"""The end of a goal run: what still lives is revoked, every task run gets its true end, and the story is told in a few lines."""

from __future__ import annotations

from include.database.unit_of_work import Connection
from include.goals import service
from include.goals.models import GoalRun, LockedGoalRun
from include.governance import notices
from include.leases import service as leases
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, Ending, Failure, GoalRunState, LockedTaskRun, TaskRunState

_UNFINISHED = "it did not finish: one of its steps failed, was skipped or was marked in Airflow (the step's log says which)"


def close(connection: Connection, dag_id: str, run_id: str, unfinished: str = _UNFINISHED) -> str:
    """Bring a goal run to its end, once; called again it only tells.

    Args:
        dag_id: of the goal.
        run_id: Airflow's.
        unfinished: why what has not finished never will.

    Returns:
        The summary, some lines of plain text.
    """
    run: GoalRun
    run = locked = service.lock(connection, dag_id, run_id)
    for task in tasks.lock_all(connection, run.id):  # locked before the leases, as everywhere
        _settle(connection, task, unfinished)
    leases.revoke_goal_run(connection, run.id, "the goal run has ended")
    if run.state not in ENDED_RUNS:
        state, reason = _end_of(locked, tasks.lock_all(connection, run.id))
        service.set_state(connection, locked, state, reason)
        run = service.ensure(connection, dag_id, run_id)
    return _tell(connection, run)


def _settle(connection: Connection, task: LockedTaskRun, words: str) -> None:
    if task.state is TaskRunState.COMPLETED or task.state in tasks.RESTS:
        return
    if task.epoch:
        tasks.end_attempt(connection, task, Ending(Failure.PERSON, words, counted=False))
    tasks.set_state(connection, task, TaskRunState.CANCELLED, words)


def _end_of(run: LockedGoalRun, found: list[LockedTaskRun]) -> tuple[GoalRunState, str]:
    """Say how a goal run ends whose landing has not ended it: COMPLETED only if its landing was recorded and then killed."""
    if run.landed_commit and run.state is GoalRunState.LANDING:
        return GoalRunState.COMPLETED, ""
    for state in (GoalRunState.ESCALATED, GoalRunState.FAILED):
        told = [f"{task.key}: {task.reason}" for task in found if task.state == state.value]
        if told:
            return state, "; ".join(told)
    if run.state is GoalRunState.LANDING:
        return (
            GoalRunState.ESCALATED,
            f"all tasks are merged on {run.goal_branch}, but the landing did not finish; the log of the step land says why",
        )
    told = [f"{task.key}: {task.reason}" for task in found if task.state is not TaskRunState.COMPLETED and task.reason]
    if found and not told:
        told = [f"{len(found)} tasks are merged on {run.goal_branch}, and it ended in Airflow before it landed"]
    return GoalRunState.CANCELLED, run.reason or "; ".join(told) or "it ended before all tasks were merged"


def _tell(connection: Connection, run: GoalRun) -> str:
    lines = [f"{run.title}: {run.state}" + (f" ({run.reason})" if run.reason else "")]
    for task in service.summary(connection, run.id):
        merged = f" as {task.merged_commit[:12]}" if task.merged_commit else ""
        tries = "1 attempt" if task.attempts == 1 else f"{task.attempts} attempts"
        cost = f"{tries}, {task.tokens} tokens, ${task.spent_micro / 1e6:.4f}{' (offline playbook)' if task.offline else ''}"
        lines.append(f"  {task.key}: {task.state}{merged}, {cost}" + (f": {task.reason}" if task.reason else ""))
    lines += [f"  {notice.kind}: {notice.words}" for notice in notices.of_goal_run(connection, run.id)]
    if run.landed_commit:
        lines.append(f"Landed on {run.base_branch} as {run.landed_commit[:12]}. {run.landing_note}".rstrip())
    elif run.base_commit:
        lines.append(f"Nothing landed; the branch {run.goal_branch} is kept.")
    return "\n".join(lines)
