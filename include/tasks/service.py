"""The life of task runs: what a step may do with one, and how an attempt ends. Every change is one transaction under the row's lock."""

from __future__ import annotations

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound, StaleEpoch
from include.fleet.models import Placement
from include.frozen import Frozen
from include.governance import service as governance
from include.leases import service as leases
from include.tasks.models import Attempt, AttemptRef, Ending, Failure, LockedTaskRun, TaskRunState
from include.tasks.rules import ended_as

_SQL = load(__file__)
RESTS = frozenset({TaskRunState.FAILED, TaskRunState.ESCALATED, TaskRunState.CANCELLED})
"""States in which a task run has come to its end without a merge."""


def lock(connection: Connection, goal_run: str, key: str) -> LockedTaskRun:
    """Lock the task run of a key until the transaction ends; it is made at first sight."""
    connection.execute(_SQL.ensure_task_run, {"id": f"{goal_run}-{key}", "goal_run": goal_run, "key": key})
    return rows.one(connection, LockedTaskRun, _SQL.lock_task_run, goal_run=goal_run, key=key)


def lock_attempt(connection: Connection, attempt: AttemptRef) -> LockedTaskRun:
    """Lock the task run of an attempt, fenced by the epoch that the caller works for.

    Raises:
        NotFound: no such task run.
        StaleEpoch: another attempt has taken over.
    """
    task = rows.maybe(connection, LockedTaskRun, _SQL.lock_by_id, task_run=attempt.task_run)
    if task is None:
        raise NotFound(f"task run {attempt.task_run} does not exist")
    if task.epoch != attempt.epoch:
        raise StaleEpoch(f"task run {task.id} is at epoch {task.epoch}; epoch {attempt.epoch} may change nothing any more")
    return task


def lock_all(connection: Connection, goal_run: str) -> list[LockedTaskRun]:
    """Lock all task runs of a goal run until the transaction ends, in the order in which everybody locks them."""
    return rows.every(connection, LockedTaskRun, _SQL.of_goal_run, goal_run=goal_run)


def attempt_of(connection: Connection, attempt: AttemptRef) -> Attempt:
    """Read one attempt.

    Raises:
        NotFound: no such attempt.
    """
    found = rows.maybe(connection, Attempt, _SQL.attempt, task_run=attempt.task_run, epoch=attempt.epoch)
    if found is None:
        raise NotFound(f"task run {attempt.task_run} has no attempt {attempt.epoch}")
    return found


def unmerged(connection: Connection, goal_run: str, keys: tuple[str, ...]) -> list[str]:
    """Say which of these tasks have not merged: our tables decide, not Airflow's states."""
    return rows.scalars(connection, _SQL.unmerged, goal_run=goal_run, keys=list(keys))


def set_state(connection: Connection, task: LockedTaskRun, state: TaskRunState, reason: str = "") -> None:
    """Move a task run along one allowed transition.

    Raises:
        IllegalTransition: the database refused it.
    """
    connection.execute(_SQL.set_state, {"task_run": task.id, "state": state, "reason": reason})


def complete(connection: Connection, task: LockedTaskRun, commit: str) -> None:
    """End a task run whose work is merged as this commit.

    Raises:
        IllegalTransition: it does not wait in the merge queue.
    """
    connection.execute(_SQL.complete, {"task_run": task.id, "commit": commit})


def to_policy_check(connection: Connection, task: LockedTaskRun) -> None:
    """Bring a task run that is to be admitted to POLICY_CHECK, from wherever people or a crash left it."""
    if task.state is TaskRunState.POLICY_CHECK:
        return
    if task.state not in (TaskRunState.PENDING, TaskRunState.PENDING_RETRY):
        end_attempt(connection, task, Ending(Failure.PERSON, "Its steps were cleared in Airflow.", counted=False))
        set_state(connection, task, TaskRunState.PENDING_RETRY, "cleared in Airflow")
    set_state(connection, task, TaskRunState.POLICY_CHECK)


def new_attempt(connection: Connection, task: LockedTaskRun, node: Placement, resumed_from: int | None, admit_tries: int) -> AttemptRef:
    """Make the next epoch and its attempt, which goes on from that of an older epoch or starts over.

    Args:
        admit_tries: how many tries Airflow allows the admit step that grants it, see ``cleared_since``.
    """
    epoch = rows.scalar(connection, _SQL.next_epoch, task_run=task.id)
    names = {"task_run": task.id, "epoch": epoch, "node": node.node, "rung": node.rung, "resumed_from": resumed_from,
             "admit_tries": admit_tries}  # fmt: skip
    connection.execute(_SQL.insert_attempt, names)
    return AttemptRef(task.id, epoch)


def cleared_since(connection: Connection, attempt: AttemptRef, tries: int) -> bool | None:
    """Was the admit step cleared, by a person or the door, after it granted this attempt?

    Airflow tries a step again by itself when its process died, or was so slow that it looked dead. Such a try has another id, like one
    after a clear; but only a clear raises the number of tries that it allows.

    Args:
        tries: how many Airflow allows the admit step now (``max_tries``).

    Returns:
        None if it cannot be told: there is no such attempt, or it was granted by an older version.
    """
    found: bool | None = rows.scalar(connection, _SQL.cleared_since, **attempt._asdict(), tries=tries)
    return found


def handed_in(connection: Connection, task: LockedTaskRun) -> None:
    """Send a task run on to verification: its worker finished, and the hand-in is stored."""
    connection.execute(_SQL.attempt_done, task.attempt._asdict())
    if task.state in (TaskRunState.LEASED, TaskRunState.BLOCKED):
        set_state(connection, task, TaskRunState.EXECUTING)
    if task.state != TaskRunState.VERIFYING:
        set_state(connection, task, TaskRunState.VERIFYING)


def end_attempt(connection: Connection, task: LockedTaskRun, ending: Ending) -> None:
    """Write the newest attempt's end (the first one wins) and revoke what still lives of the task run."""
    current = rows.maybe(connection, Attempt, _SQL.attempt, **task.attempt._asdict())
    if current is not None:
        state = ended_as(current.state, ending.failure)
        connection.execute(_SQL.end_attempt, {**task.attempt._asdict(), **ending._asdict(), "state": state})
    leases.revoke_task(connection, task.id, ending.reason)


def cancel(connection: Connection, task: LockedTaskRun, reason: str) -> bool:
    """End a task run because a person did: its attempt is over, it is CANCELLED, what lives is revoked. False: it had ended."""
    if task.state is TaskRunState.COMPLETED or task.state in RESTS:
        leases.revoke_task(connection, task.id, reason)
        return False
    if task.epoch:
        end_attempt(connection, task, Ending(Failure.PERSON, reason, counted=False))
    set_state(connection, task, TaskRunState.CANCELLED, reason)
    return True


def cancel_by_mark(connection: Connection, task: LockedTaskRun, reason: str) -> bool:
    """Cancel what a person marked in Airflow; the audit log has it once, by whichever way we were told first.

    Args:
        reason: which step was marked.
    """
    if not cancel(connection, task, reason):
        return False
    governance.record(connection, "a person in Airflow", "attempt.cancelled", f"{task.id}/{task.epoch}", {"reason": reason})
    return True


def accept(connection: Connection, task_run: str, commit: str) -> None:
    """Remember the last accepted commit: a further attempt goes on from there."""
    connection.execute(_SQL.set_accepted, {"task_run": task_run, "commit": commit})


def set_feedback(connection: Connection, task: LockedTaskRun, feedback: str) -> None:
    """Write down what the next worker should know."""
    connection.execute(_SQL.set_feedback, {"task_run": task.id, "feedback": feedback})


class Milestone(Frozen):
    """One event that a worker told."""

    id: int
    detail: str


def milestones(connection: Connection, attempt: AttemptRef, after: int) -> list[tuple[int, str]]:
    """Read the worker's milestones since the event ``after``, at most 50: (event id, words)."""
    found = rows.every(connection, Milestone, _SQL.milestones, subject=f"{attempt.task_run}/{attempt.epoch}", after=after)
    return [(each.id, each.detail) for each in found]
