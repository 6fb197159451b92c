"""Rework: what becomes of an attempt that failed, decided once and written down before anybody acts on it; the door carries it out."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from include.clock import new_id
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.frozen import Frozen
from include.settings import Settings
from include.tasks import resume, service
from include.tasks.models import STEPS, AttemptRef, Ending, Failure, GoesOn, LockedTaskRun, Rework, TaskRunState
from include.tasks.rules import History, Next, after_failure

_SQL = load(__file__)


class GaveUp(NamedTuple):
    """No further attempt: the state the task run ended in and the whole story."""

    state: TaskRunState
    story: str


class Asker(NamedTuple):
    """Which step decides: the attempt that it works for, and its Airflow task-instance id, which is the fencing token at the door."""

    attempt: AttemptRef
    ti_id: str


class Decided(Frozen):
    """A decision that a step made and left behind."""

    steps: tuple[str, ...]
    reason: str
    feedback: str


class LockedRework(Frozen):
    """A recorded decision, locked, with where it is to be carried out and the epoch that its task run is at now."""

    id: UUID
    ti_id: str
    steps: tuple[str, ...]
    epoch: int
    cleared_at: datetime | None
    epoch_now: int
    key: str
    dag_id: str
    run_id: str


def fail_attempt(
    connection: Connection, settings: Settings, asker: Asker, failure: Failure, reason: str, feedback: str = ""
) -> Rework | GaveUp:
    """Decide, once, what becomes of an attempt that failed, and write it down before anybody acts on it.

    Args:
        asker: the deciding step; its attempt's epoch fences it.
        failure: class of the failure.
        reason: what happened, in a sentence.
        feedback: what the next worker should know; empty: the reason, if the attempt counts.

    Returns:
        A rework for the door to carry out, or the end of the story.

    Raises:
        StaleEpoch: another attempt has taken over.
    """
    task, decided = _open(connection, asker)
    if decided is not None:
        return decided
    if task.state in service.RESTS:
        return GaveUp(task.state, task.reason)
    if task.state is TaskRunState.PENDING_RETRY:  # another step saw the same end first: its decision stands, and counts once
        return _record(connection, asker, Decided(steps=STEPS, reason=task.reason, feedback=task.feedback))
    history = rows.one(connection, History, _SQL.history, **asker.attempt._asdict(), failure=failure)
    next_ = after_failure(failure, reason, history, settings.attempts, settings.infrastructure_attempts)
    feedback = feedback or (reason if next_.counted else task.feedback)  # what was lost has no fault of its own: the older words stand
    service.end_attempt(connection, task, Ending(failure, reason, next_.counted))
    service.set_state(connection, task, next_.state, next_.story)
    _prepare(connection, task, next_, feedback)
    if next_.state is not TaskRunState.PENDING_RETRY:
        return GaveUp(next_.state, next_.story)
    return _record(connection, asker, Decided(steps=STEPS, reason=reason, feedback=feedback))


def _prepare(connection: Connection, task: LockedTaskRun, next_: Next, feedback: str) -> None:
    """Write down how the next attempt begins, if there is one."""
    resumes = next_.state is TaskRunState.PENDING_RETRY and next_.goes_on is GoesOn.TRANSCRIPT
    names = {"task_run": task.id, "feedback": feedback, "delay_s": next_.delay_s, "afresh": next_.goes_on is GoesOn.TARGET}
    connection.execute(_SQL.prepare, names | {"resume_from": resume.source(connection, task.attempt) if resumes else None})


def verify_again(connection: Connection, asker: Asker, reason: str) -> Rework:
    """Ask for the same attempt to be verified again, because the target moved. Not counted.

    Raises:
        StaleEpoch: another attempt has taken over.
    """
    task, decided = _open(connection, asker)
    if decided is not None:
        return decided
    if task.state is TaskRunState.MERGE_QUEUE:
        service.set_state(connection, task, TaskRunState.VERIFYING, reason)
    return _record(connection, asker, Decided(steps=("verify", "merge"), reason=reason, feedback=""))


def take_over(connection: Connection, asker: Asker) -> Rework | None:
    """Record again, for this try of a step, the decision that a killed try of it left and the door never carried out.

    Each try has a task-instance id of its own, and the door hears only the one that decided.

    Args:
        asker: the next try; its task run is in a state that the step does not begin in.

    Returns:
        None: nothing was left.

    Raises:
        StaleEpoch: another attempt has taken over.
    """
    _, decided = _open(connection, asker)
    if decided is not None:
        return decided
    left = rows.maybe(connection, Decided, _SQL.undone_rework, **asker.attempt._asdict())
    return _record(connection, asker, left) if left else None


def _open(connection: Connection, asker: Asker) -> tuple[LockedTaskRun, Rework | None]:
    """Lock and fence the task run; with what this task instance has already decided for it."""
    task = service.lock_attempt(connection, asker.attempt)
    return task, rows.maybe(connection, Rework, _SQL.rework_of, **asker.attempt._asdict(), ti_id=asker.ti_id)


def _record(connection: Connection, asker: Asker, decided: Decided) -> Rework:
    rework = Rework(id=new_id(), **asker.attempt._asdict(), ti_id=asker.ti_id, **decided.model_dump())
    connection.execute(_SQL.insert_rework, {**rework.model_dump(), "steps": list(decided.steps)})
    return rework


def given_up_by_a_step(connection: Connection, attempt: AttemptRef) -> bool:
    """Say whether a step asked for the attempt after this one; false if a person cleared it."""
    return bool(rows.scalar(connection, _SQL.rework_for_epoch, **attempt._asdict()))


class _Waits(Frozen):
    """Whether the asking task instance is the one that waits, and for how long still."""

    mine: bool
    seconds: int


def wait_until_due(connection: Connection, task: LockedTaskRun, ti_id: str) -> int:
    """Claim the wait for the next attempt for an admit step.

    Returns:
        How many seconds it still waits; 0: no longer, or another task instance waited, so that a person has cleared it.
    """
    found = rows.maybe(connection, _Waits, _SQL.wait_until_due, task_run=task.id, ti_id=ti_id)
    return found.seconds if found and found.mine else 0


def lock_rework(connection: Connection, rework: UUID) -> LockedRework | None:
    """Lock a recorded decision, and hold its task run still, until the transaction ends; None: there is none."""
    return rows.maybe(connection, LockedRework, _SQL.lock_rework, id=rework)


def mark_cleared(connection: Connection, rework: LockedRework) -> None:
    """Write down that the door has carried out a decision."""
    connection.execute(_SQL.mark_cleared, {"id": rework.id})
