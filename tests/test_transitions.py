"""Whether a failed attempt is done again: every class of failure, with every count."""

from __future__ import annotations

import itertools

from include.tasks.models import NOT_COUNTED, Failure, TaskRunState
from include.tasks.rules import TRANSITIONS, after_failure


def test_attempts_are_bounded_for_every_failure_and_count() -> None:
    for failure, counted, lost in itertools.product(Failure, range(4), range(12)):
        next_ = after_failure(failure, "why", counted, lost, attempts=3, infrastructure_attempts=10)
        again = next_.state is TaskRunState.PENDING_RETRY
        assert next_.counted == (failure not in NOT_COUNTED)
        assert "why" in next_.story
        if next_.counted and counted >= 2:
            assert not again
        if not next_.counted and lost >= 9:
            assert not again


def test_lost_attempts_do_not_use_up_the_others() -> None:
    assert after_failure(Failure.LOST, "killed", 2, 5, 3, 10).state is TaskRunState.PENDING_RETRY
    assert after_failure(Failure.RED, "red", 2, 0, 3, 10).state is TaskRunState.FAILED
    assert after_failure(Failure.CONFLICT, "conflict", 2, 0, 3, 10).state is TaskRunState.ESCALATED
    assert after_failure(Failure.BUDGET, "empty", 0, 0, 3, 10).state is TaskRunState.ESCALATED


def test_every_state_but_the_last_has_a_way_on_and_completed_is_final() -> None:
    ways = {(machine, before) for machine, before, _ in TRANSITIONS}
    assert ("task_run", "COMPLETED") not in ways
    assert ("goal_run", "COMPLETED") not in ways
    assert all(("task_run", state) in ways for state in TaskRunState if state is not TaskRunState.COMPLETED)
