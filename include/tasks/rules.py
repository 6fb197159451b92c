"""What may follow what, and whether a failed attempt is done again. Pure: the database trigger holds the same table."""

from __future__ import annotations

from typing import NamedTuple

from include.tasks.models import NOT_COUNTED, Failure, TaskRunState

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


class Next(NamedTuple):
    """What becomes of a task run whose attempt failed."""

    state: TaskRunState  # PENDING_RETRY, FAILED or ESCALATED
    counted: bool
    story: str


def after_failure(failure: Failure, reason: str, counted: int, lost: int, attempts: int, infrastructure_attempts: int) -> Next:
    """Decide whether a failed attempt is done again.

    Args:
        failure: its class.
        reason: what happened, in a sentence.
        counted: attempts of this task run that counted, without this one.
        lost: attempts that did not count, without this one.
        attempts: how many may count.
        infrastructure_attempts: how many may be lost.

    Returns:
        The next state with whether this attempt counts, and the story to tell a person.
    """
    counts = failure not in NOT_COUNTED
    if failure in (Failure.BUDGET, Failure.MODEL):
        return Next(TaskRunState.ESCALATED, counts, f"{reason} A person can mend this; then clear the group's steps in Airflow.")
    if counts and counted + 1 >= attempts:
        state = TaskRunState.ESCALATED if failure is Failure.CONFLICT else TaskRunState.FAILED
        return Next(state, True, f"All {attempts} attempts are used up. The last one: {reason}")
    if not counts and lost + 1 >= infrastructure_attempts:
        return Next(TaskRunState.ESCALATED, False, f"{lost + 1} attempts were lost to infrastructure. The last one: {reason}")
    return Next(TaskRunState.PENDING_RETRY, counts, reason)
