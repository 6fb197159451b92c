"""The life of task runs: what a step may do with one, and how an attempt ends. Every change is one transaction under the row's lock."""

from __future__ import annotations

from typing import Any, NamedTuple

from include.clock import new_id
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound, StaleEpoch
from include.fleet.models import Placement
from include.governance import service as governance
from include.leases import service as leases
from include.settings import Settings
from include.tasks import resume
from include.tasks.models import STEPS, Failure, GoesOn, Rework, TaskRunState
from include.tasks.rules import History, Next, after_failure, ended_as

_SQL = load(__file__)
_RESTS = frozenset({TaskRunState.FAILED, TaskRunState.ESCALATED, TaskRunState.CANCELLED})


class GaveUp(NamedTuple):
    """No further attempt: the state the task run ended in and the whole story."""

    state: TaskRunState
    story: str


def lock(connection: Connection, goal_run: str, key: str) -> dict[str, Any]:
    """The task run of a key (made at first sight), locked until the transaction ends."""
    connection.execute(_SQL.ensure_task_run, {"id": f"{goal_run}-{key}", "goal_run": goal_run, "key": key})
    row = connection.execute(_SQL.lock_task_run, {"goal_run": goal_run, "key": key}).fetchone()
    assert row is not None
    return row


def lock_by_id(connection: Connection, task_run: str, epoch: int) -> dict[str, Any]:
    """A task run by id, locked, and fenced by the epoch that the caller works for.

    Raises:
        NotFound: no such task run.
        StaleEpoch: another attempt has taken over.
    """
    row = connection.execute(_SQL.lock_by_id, {"task_run": task_run}).fetchone()
    if row is None:
        raise NotFound(f"task run {task_run} does not exist")
    if row["epoch"] != epoch:
        raise StaleEpoch(f"task run {task_run} is at epoch {row['epoch']}; epoch {epoch} may change nothing any more")
    return row


def attempt(connection: Connection, task_run: str, epoch: int) -> dict[str, Any]:
    """The row of one attempt.

    Raises:
        NotFound: no such attempt.
    """
    row = connection.execute(_SQL.attempt, {"task_run": task_run, "epoch": epoch}).fetchone()
    if row is None:
        raise NotFound(f"task run {task_run} has no attempt {epoch}")
    return row


def unmerged(connection: Connection, goal_run: str, keys: tuple[str, ...]) -> list[str]:
    """Which of these tasks have not merged: our tables decide, not Airflow's states."""
    return [row["key"] for row in connection.execute(_SQL.unmerged, {"goal_run": goal_run, "keys": list(keys)})]


def set_state(connection: Connection, task_run: str, state: TaskRunState, reason: str = "") -> None:
    """Move a task run along one allowed transition.

    Raises:
        IllegalTransition: the database refused it.
    """
    connection.execute(_SQL.set_state, {"task_run": task_run, "state": state, "reason": reason})


def to_policy_check(connection: Connection, row: dict[str, Any]) -> None:
    """Bring a task run that is to be admitted to POLICY_CHECK, from wherever people or a crash left it."""
    state = TaskRunState(row["state"])
    if state is TaskRunState.POLICY_CHECK:
        return
    if state not in (TaskRunState.PENDING, TaskRunState.PENDING_RETRY):
        end_attempt(connection, row["id"], row["epoch"], Failure.PERSON, "Its steps were cleared in Airflow.", counted=False)
        set_state(connection, row["id"], TaskRunState.PENDING_RETRY, "cleared in Airflow")
    set_state(connection, row["id"], TaskRunState.POLICY_CHECK)


def new_attempt(connection: Connection, task_run: str, node: Placement, resumed_from: int | None, admit_tries: int) -> int:
    """The next epoch and its attempt, which goes on from that of an older epoch or starts over; returns the epoch.

    Args:
        admit_tries: how many tries Airflow allows the admit step that grants it, see ``cleared_since``.
    """
    row = connection.execute(_SQL.next_epoch, {"task_run": task_run}).fetchone()
    assert row is not None
    names = {"task_run": task_run, "epoch": row["epoch"], "node": node.node, "rung": node.rung, "resumed_from": resumed_from,
             "admit_tries": admit_tries}  # fmt: skip
    connection.execute(_SQL.insert_attempt, names)
    return int(row["epoch"])


def cleared_since(connection: Connection, task_run: str, epoch: int, tries: int) -> bool | None:
    """Was the admit step cleared, by a person or the door, after it granted this attempt?

    Airflow tries a step again by itself when its process died, or was so slow that it looked dead. Such a try has another id, like one
    after a clear; but only a clear raises the number of tries that it allows.

    Args:
        tries: how many Airflow allows the admit step now (``max_tries``).

    Returns:
        None if it cannot be told: there is no such attempt, or it was granted by an older version.
    """
    row = connection.execute(_SQL.cleared_since, {"task_run": task_run, "epoch": epoch, "tries": tries}).fetchone()
    return row["cleared"] if row else None


def handed_in(connection: Connection, task_run: str, epoch: int) -> None:
    """The worker finished and its hand-in is stored: on to verification."""
    row = lock_by_id(connection, task_run, epoch)
    connection.execute(_SQL.attempt_done, {"task_run": task_run, "epoch": epoch})
    if row["state"] in (TaskRunState.LEASED, TaskRunState.BLOCKED):
        set_state(connection, task_run, TaskRunState.EXECUTING)
    if row["state"] != TaskRunState.VERIFYING:
        set_state(connection, task_run, TaskRunState.VERIFYING)


def end_attempt(connection: Connection, task_run: str, epoch: int, failure: Failure, reason: str, counted: bool) -> None:
    """Write an attempt's end (the first one wins) and revoke what still lives of the task run."""
    current = connection.execute(_SQL.attempt, {"task_run": task_run, "epoch": epoch}).fetchone()
    if current is not None:
        state = ended_as(current["state"], failure)
        names = {"task_run": task_run, "epoch": epoch, "state": state, "failure": failure, "reason": reason, "counted": counted}
        connection.execute(_SQL.end_attempt, names)
    leases.revoke_task(connection, task_run, reason)


def cancel(connection: Connection, task_run: str, epoch: int, reason: str) -> bool:
    """A person ended it: the attempt is over, the task run is CANCELLED, what lives is revoked. False: it had ended."""
    row = lock_by_id(connection, task_run, epoch)
    if row["state"] == TaskRunState.COMPLETED or row["state"] in _RESTS:
        leases.revoke_task(connection, task_run, reason)
        return False
    if epoch:
        end_attempt(connection, task_run, epoch, Failure.PERSON, reason, counted=False)
    set_state(connection, task_run, TaskRunState.CANCELLED, reason)
    return True


def cancel_by_mark(connection: Connection, row: dict[str, Any], reason: str) -> bool:
    """As ``cancel``, for what a person marked in Airflow: the audit log has it once, by whichever way we were told first.

    Args:
        row: the task run, locked.
        reason: which step was marked.
    """
    if not cancel(connection, row["id"], row["epoch"], reason):
        return False
    governance.record(connection, "a person in Airflow", "attempt.cancelled", f"{row['id']}/{row['epoch']}", {"reason": reason})
    return True


def fail_attempt(
    connection: Connection, settings: Settings, task_run: str, epoch: int, ti_id: str, failure: Failure, reason: str, feedback: str = ""
) -> Rework | GaveUp:
    """Decide, once, what becomes of an attempt that failed, and write it down before anybody acts on it.

    Args:
        epoch: the attempt's; an older one is refused.
        ti_id: the deciding step's Airflow task-instance id.
        failure: class of the failure.
        reason: what happened, in a sentence.
        feedback: what the next worker should know; empty: the reason, if the attempt counts.

    Returns:
        A rework for the door to carry out, or the end of the story.

    Raises:
        StaleEpoch: another attempt has taken over.
    """
    row, decided = _open(connection, task_run, epoch, ti_id)
    if decided is not None:
        return decided
    if row["state"] in _RESTS:
        return GaveUp(TaskRunState(row["state"]), row["reason"])
    if row["state"] == TaskRunState.PENDING_RETRY:  # another step saw the same end first: its decision stands, and counts once
        return _record(connection, task_run, epoch, ti_id, STEPS, row["reason"], row["feedback"])
    history = History(**connection.execute(_SQL.history, {"task_run": task_run, "epoch": epoch, "failure": failure}).fetchone() or {})
    next_ = after_failure(failure, reason, history, settings.attempts, settings.infrastructure_attempts)
    feedback = feedback or (reason if next_.counted else row["feedback"])  # what was lost has no fault of its own: the older words stand
    end_attempt(connection, task_run, epoch, failure, reason, next_.counted)
    set_state(connection, task_run, next_.state, next_.story)
    _prepare(connection, task_run, epoch, next_, feedback)
    if next_.state is not TaskRunState.PENDING_RETRY:
        return GaveUp(next_.state, next_.story)
    return _record(connection, task_run, epoch, ti_id, STEPS, reason, feedback)


def _prepare(connection: Connection, task_run: str, epoch: int, next_: Next, feedback: str) -> None:
    """Write down how the next attempt begins, if there is one."""
    resumes = next_.state is TaskRunState.PENDING_RETRY and next_.goes_on is GoesOn.TRANSCRIPT
    names = {"task_run": task_run, "feedback": feedback, "delay_s": next_.delay_s, "afresh": next_.goes_on is GoesOn.TARGET}
    connection.execute(_SQL.prepare, names | {"resume_from": resume.source(connection, task_run, epoch) if resumes else None})


def verify_again(connection: Connection, task_run: str, epoch: int, ti_id: str, reason: str) -> Rework:
    """The target moved: the same attempt is verified again on the new target. Not counted.

    Raises:
        StaleEpoch: another attempt has taken over.
    """
    row, decided = _open(connection, task_run, epoch, ti_id)
    if decided is not None:
        return decided
    if row["state"] == TaskRunState.MERGE_QUEUE:
        set_state(connection, task_run, TaskRunState.VERIFYING, reason)
    return _record(connection, task_run, epoch, ti_id, ("verify", "merge"), reason, "")


def undone(connection: Connection, task_run: str, epoch: int, ti_id: str) -> Rework | None:
    """What a step had decided about this attempt when it was killed, before the door had carried it out; decided for its next try now.

    Args:
        task_run: in a state that the step does not begin in.
        epoch: the attempt's.
        ti_id: the next try's Airflow task-instance id: each try has its own, and the door hears only the one that decided.

    Raises:
        StaleEpoch: another attempt has taken over.
    """
    _, decided = _open(connection, task_run, epoch, ti_id)
    if decided is not None:
        return decided
    left = connection.execute(_SQL.undone_rework, {"task_run": task_run, "epoch": epoch}).fetchone()
    return _record(connection, task_run, epoch, ti_id, tuple(left["steps"]), left["reason"], left["feedback"]) if left else None


def _open(connection: Connection, task_run: str, epoch: int, ti_id: str) -> tuple[dict[str, Any], Rework | None]:
    """The task run, locked and fenced, with what this task instance has already decided for it."""
    row = lock_by_id(connection, task_run, epoch)
    decided = connection.execute(_SQL.rework_of, {"task_run": task_run, "epoch": epoch, "ti_id": ti_id}).fetchone()
    return row, Rework(**decided) if decided else None


def _record(connection: Connection, task_run: str, epoch: int, ti_id: str, steps: tuple[str, ...], reason: str, feedback: str) -> Rework:
    rework = Rework(id=new_id(), task_run=task_run, epoch=epoch, ti_id=ti_id, steps=steps, reason=reason, feedback=feedback)
    connection.execute(_SQL.insert_rework, {**rework.model_dump(), "steps": list(steps)})
    return rework


def given_up_by_a_step(connection: Connection, task_run: str, epoch: int) -> bool:
    """True if a step asked for the attempt after this epoch; false if a person cleared it."""
    row = connection.execute(_SQL.rework_for_epoch, {"task_run": task_run, "epoch": epoch}).fetchone()
    return bool(row and row["by_a_step"])


def seconds_until_due(connection: Connection, task_run: str, ti_id: str) -> int:
    """How many seconds the admit step still waits; 0: no longer, or another task instance waited, so that a person has cleared it."""
    row = connection.execute(_SQL.wait_until_due, {"task_run": task_run, "ti_id": ti_id}).fetchone()
    return int(row["seconds"]) if row and row["mine"] else 0


def accept(connection: Connection, task_run: str, commit: str) -> None:
    """Remember the last accepted commit: a further attempt goes on from there."""
    connection.execute(_SQL.set_accepted, {"task_run": task_run, "commit": commit})


def set_feedback(connection: Connection, task_run: str, feedback: str) -> None:
    """What the next worker should know."""
    connection.execute(_SQL.set_feedback, {"task_run": task_run, "feedback": feedback})


def milestones(connection: Connection, task_run: str, epoch: int, after: int) -> list[tuple[int, str]]:
    """The worker's milestones since the event ``after``, at most 50: (event id, words)."""
    rows = connection.execute(_SQL.milestones, {"subject": f"{task_run}/{epoch}", "after": after})
    return [(row["id"], row["detail"]) for row in rows]


def of_goal_run(connection: Connection, goal_run: str) -> list[dict[str, Any]]:
    """All task runs of a goal run, locked until the transaction ends."""
    return connection.execute(_SQL.of_goal_run, {"goal_run": goal_run}).fetchall()
