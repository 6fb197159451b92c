"""What may follow what, and whether a failed attempt is done again. Pure: the database trigger holds the same table."""

from __future__ import annotations

from typing import NamedTuple

from include.tasks.models import Failure, GoesOn, TaskRunState

_BEGINS = {"goal_run": ("SUBMITTED",), "task_run": ("PENDING",), "attempt": ("SPAWNING",)}
"""The states in which a row may be inserted; in the table of transitions they follow the empty state."""

_GOAL_RUN = """
SUBMITTED -> PLANNING RUNNING REFUSED FAILED CANCELLED
PLANNING -> AWAITING_APPROVAL RUNNING REFUSED FAILED ESCALATED CANCELLED
AWAITING_APPROVAL -> RUNNING REFUSED CANCELLED FAILED
RUNNING -> LANDING FAILED ESCALATED CANCELLED
LANDING -> COMPLETED RUNNING FAILED ESCALATED CANCELLED
FAILED -> RUNNING
ESCALATED -> RUNNING
CANCELLED -> RUNNING
"""

_TASK_RUN = """
PENDING -> PLANNING POLICY_CHECK FAILED ESCALATED CANCELLED
PLANNING -> POLICY_CHECK FAILED ESCALATED CANCELLED
POLICY_CHECK -> LEASED FAILED ESCALATED CANCELLED
LEASED -> EXECUTING PENDING_RETRY FAILED ESCALATED CANCELLED
EXECUTING -> BLOCKED VERIFYING PENDING_RETRY FAILED ESCALATED CANCELLED
BLOCKED -> EXECUTING PENDING_RETRY FAILED ESCALATED CANCELLED
VERIFYING -> MERGE_QUEUE PENDING_RETRY FAILED ESCALATED CANCELLED
MERGE_QUEUE -> COMPLETED VERIFYING PENDING_RETRY FAILED ESCALATED CANCELLED
PENDING_RETRY -> POLICY_CHECK FAILED ESCALATED CANCELLED
FAILED -> PENDING_RETRY
ESCALATED -> PENDING_RETRY
CANCELLED -> PENDING_RETRY
"""

_ATTEMPT = """
SPAWNING -> READY WORKING FAILED CANCELLED TIMED_OUT SPAWN_FAILED
READY -> WORKING COMPLETING FAILED CANCELLED TIMED_OUT
WORKING -> BLOCKED COMPLETING FAILED CANCELLED TIMED_OUT
BLOCKED -> WORKING COMPLETING FAILED CANCELLED TIMED_OUT
COMPLETING -> DONE FAILED CANCELLED TIMED_OUT
DONE -> FAILED CANCELLED
"""


def _rows(machine: str, text: str) -> list[tuple[str, str, str]]:
    lines = (line.split(" -> ") for line in text.strip().splitlines())
    ways = [(machine, before, after) for before, afters in lines for after in afters.split()]
    return [(machine, "", state) for state in _BEGINS[machine]] + ways


TRANSITIONS = _rows("goal_run", _GOAL_RUN) + _rows("task_run", _TASK_RUN) + _rows("attempt", _ATTEMPT)

ENDED = frozenset({"DONE", "FAILED", "CANCELLED", "TIMED_OUT", "SPAWN_FAILED"})
"""Attempt states in which no worker lives."""


class Class(NamedTuple):
    """What follows from a class of failure."""

    counted: bool  # against the attempts that a task has; else against those that infrastructure may cost
    again: bool  # done again while there are attempts left
    waits: tuple[int, ...]  # seconds before the next attempt, after the first such failure in a row, the second, and so on; then the last
    goes_on: GoesOn
    ends_as: TaskRunState  # when it is not done again


_SOON = (0, 2, 4, 8, 16, 32, 60)
_AT_ONCE = (0,)

CLASSES: dict[Failure, Class] = {
    # failure                     counted again  waits               goes on with        ends as
    Failure.LOST:           Class(False, True,  _SOON,              GoesOn.TRANSCRIPT, TaskRunState.ESCALATED),
    # An attempt that never started has no transcript: the next one goes on from where it would have gone on.
    Failure.NEVER_STARTED:  Class(False, True,  _SOON[1:],          GoesOn.TRANSCRIPT, TaskRunState.ESCALATED),
    Failure.LEASE_BROKEN:   Class(True,  True,  _AT_ONCE,           GoesOn.TRANSCRIPT, TaskRunState.FAILED),
    Failure.WORKER_FAILED:  Class(True,  True,  _AT_ONCE,           GoesOn.COMMIT,     TaskRunState.FAILED),
    Failure.RED:            Class(True,  True,  _AT_ONCE,           GoesOn.COMMIT,     TaskRunState.FAILED),
    Failure.REFUSED_HANDIN: Class(True,  True,  _AT_ONCE,           GoesOn.COMMIT,     TaskRunState.FAILED),
    Failure.CONFLICT:       Class(True,  True,  _AT_ONCE,           GoesOn.TARGET,     TaskRunState.ESCALATED),
    Failure.BUDGET:         Class(True,  False, (),                 GoesOn.COMMIT,     TaskRunState.ESCALATED),
    Failure.MODEL:          Class(True,  False, (),                 GoesOn.COMMIT,     TaskRunState.ESCALATED),
    # Not counted: nobody did any work badly, and the money of an unanswered call was given back. Bounded all the same.
    Failure.MODEL_AWAY:     Class(False, True,  (15, 30, 60, 120),  GoesOn.TRANSCRIPT, TaskRunState.ESCALATED),
    Failure.PERSON:         Class(False, False, (),                 GoesOn.COMMIT,     TaskRunState.CANCELLED),
}  # fmt: skip
"""The failure classes (docs/decisions/0011-failure-classes-and-resume.md)."""

_MEND = "A person can mend this; then clear the group's steps in Airflow."


class History(NamedTuple):
    """The attempts of a task run before the one that failed."""

    counted: int  # how many counted
    lost: int  # how many did not, persons' left aside
    in_a_row: int  # how many of the newest ones failed with the same class


class Next(NamedTuple):
    """What becomes of a task run whose attempt failed."""

    state: TaskRunState  # PENDING_RETRY, or how it ends
    counted: bool
    story: str
    delay_s: int  # before the next attempt may be admitted
    goes_on: GoesOn


def after_failure(failure: Failure, reason: str, history: History, attempts: int, infrastructure_attempts: int) -> Next:
    """Decide whether a failed attempt is done again, after how long, and with what it begins.

    Args:
        failure: its class.
        reason: what happened, in a sentence.
        history: of the attempts before it.
        attempts: how many may count.
        infrastructure_attempts: how many may be lost.

    Returns:
        The next state with whether this attempt counts, the story to tell a person, and how the next attempt begins.
    """
    counted, again, waits, goes_on, ends_as = CLASSES[failure]
    story = reason
    if again and counted and history.counted + 1 >= attempts:
        again, story = False, f"All {attempts} attempts are used up. The last one: {reason}"
    if again and not counted and history.lost + 1 >= infrastructure_attempts:
        again, story = False, f"{history.lost + 1} attempts were lost to infrastructure. The last one: {reason}"
    if again:
        return Next(TaskRunState.PENDING_RETRY, counted, story, waits[min(history.in_a_row, len(waits) - 1)], goes_on)
    return Next(ends_as, counted, f"{story} {_MEND}" if ends_as is TaskRunState.ESCALATED else story, 0, goes_on)


_ENDS_ATTEMPT_AS = {Failure.NEVER_STARTED: "SPAWN_FAILED", Failure.PERSON: "CANCELLED", Failure.LEASE_BROKEN: "TIMED_OUT"}


def ended_as(state: str, failure: Failure) -> str:
    """The state that an attempt ends in: its failure's own where the table of transitions has that way, else FAILED.

    Args:
        state: the attempt's; one that has ended already (DONE has not: its merge may still fail) stays as it is.
        failure: why it ends.
    """
    if state in ENDED - {"DONE"}:
        return state
    wanted = _ENDS_ATTEMPT_AS.get(failure, "FAILED")
    return wanted if ("attempt", state, wanted) in TRANSITIONS else "FAILED"


class Way(NamedTuple):
    """How far an attempt came with its transcript."""

    epoch: int
    resumed_from: int | None
    first_turn: int  # that its worker asked for
    turns: int  # of the model that stand in its transcript, copied ones included; 0: it was never assigned, or never answered


def source(this: Way, before: Way | None) -> int | None:
    """The epoch that the attempt after ``this`` goes on from; None: it starts over.

    A transcript that was resumed twice in a row without one new turn may be what kills the attempts: it is given up.

    Args:
        this: the attempt that failed.
        before: the attempt that it had gone on from.
    """
    if this.turns == 0:
        return this.resumed_from
    if before is not None and is_stuck(this) and is_stuck(before):
        return None
    return this.epoch


def is_stuck(way: Way) -> bool:
    """True if the attempt was resumed and the model gave it no turn of its own."""
    return way.resumed_from is not None and way.turns < way.first_turn
