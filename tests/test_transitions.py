"""What follows from a failure: every class with every count, how attempts end, and when a transcript is given up."""

from __future__ import annotations

import itertools

import pytest

from include.tasks import rules
from include.tasks.models import ENDED_RUNS, AttemptState, Failure, GoesOn, TaskRunState
from include.tasks.rules import CLASSES, TRANSITIONS, History, Way, after_failure, ended_as, source

COUNTED = {failure for failure in Failure if CLASSES[failure].counted}


def test_attempts_are_bounded_for_every_failure_and_count() -> None:
    for failure, counted, lost, in_a_row in itertools.product(Failure, range(4), range(12), range(12)):
        next_ = after_failure(failure, "why", History(counted, lost, in_a_row), attempts=3, infrastructure_attempts=10)
        again = next_.state is TaskRunState.PENDING_RETRY
        assert next_.counted == (failure in COUNTED)
        assert "why" in next_.story
        assert again or (next_.state in ENDED_RUNS and next_.delay_s == 0)
        if next_.counted and counted >= 2:
            assert not again
        if not next_.counted and lost >= 9:
            assert not again
        assert 0 <= next_.delay_s <= 120


def test_what_each_class_means() -> None:
    """The table of docs/decisions/0011-failure-classes-and-resume.md, in the large: counted, done again, where the next one begins."""
    not_counted = {Failure.LOST, Failure.NEVER_STARTED, Failure.MODEL_AWAY, Failure.PERSON}
    assert set(Failure) - COUNTED == not_counted
    assert {failure for failure in Failure if not CLASSES[failure].again} == {Failure.BUDGET, Failure.MODEL, Failure.PERSON}
    by_start = {start: {failure for failure in Failure if CLASSES[failure].again and CLASSES[failure].goes_on is start} for start in GoesOn}
    assert by_start == {
        GoesOn.TRANSCRIPT: {Failure.LOST, Failure.NEVER_STARTED, Failure.LEASE_BROKEN, Failure.MODEL_AWAY},
        GoesOn.COMMIT: {Failure.WORKER_FAILED, Failure.RED, Failure.REFUSED_HANDIN},
        GoesOn.TARGET: {Failure.CONFLICT},
    }


def test_delays_grow_with_failures_in_a_row_and_are_bounded() -> None:
    for failure, class_ in CLASSES.items():
        if not class_.again:
            continue
        delays = [after_failure(failure, "why", History(0, n, n), 99, 99).delay_s for n in range(30)]
        assert delays == sorted(delays) and delays[-1] == class_.waits[-1] <= 120
        assert failure in COUNTED or delays[-1] >= 60
    assert [after_failure(Failure.LOST, "w", History(0, n, n), 3, 10).delay_s for n in range(9)] == [0, 2, 4, 8, 16, 32, 60, 60, 60]
    assert after_failure(Failure.LOST, "w", History(0, 8, 0), 3, 10).delay_s == 0  # the last one failed otherwise


def test_an_endpoint_that_stays_away_ends_in_bounded_time() -> None:
    waited, lost = 0, 0
    while (next_ := after_failure(Failure.MODEL_AWAY, "127.0.0.1:9 does not answer.", History(0, lost, lost), 3, 10)).delay_s:
        waited, lost = waited + next_.delay_s, lost + 1
    assert next_.state is TaskRunState.ESCALATED and "127.0.0.1:9" in next_.story and "A person can mend this" in next_.story
    assert (lost, waited) == (9, 825)


def test_lost_attempts_do_not_use_up_the_others() -> None:
    assert after_failure(Failure.LOST, "killed", History(2, 5, 5), 3, 10).state is TaskRunState.PENDING_RETRY
    assert after_failure(Failure.RED, "red", History(2, 0, 0), 3, 10).state is TaskRunState.FAILED
    assert after_failure(Failure.CONFLICT, "conflict", History(2, 0, 0), 3, 10).state is TaskRunState.ESCALATED
    assert after_failure(Failure.BUDGET, "empty", History(0, 0, 0), 3, 10).state is TaskRunState.ESCALATED


@pytest.mark.parametrize("state", AttemptState)
def test_an_attempt_ends_along_the_table_of_transitions(state: AttemptState) -> None:
    for failure in Failure:
        end = ended_as(state, failure)
        assert end == state or ("attempt", state, end) in TRANSITIONS
        assert end in rules.ENDED and (end != "DONE")
    assert ended_as("WORKING", Failure.LEASE_BROKEN) == "TIMED_OUT" and ended_as("DONE", Failure.LEASE_BROKEN) == "FAILED"
    assert ended_as("SPAWNING", Failure.NEVER_STARTED) == "SPAWN_FAILED" and ended_as("WORKING", Failure.NEVER_STARTED) == "FAILED"
    assert ended_as("DONE", Failure.PERSON) == "CANCELLED" and ended_as("TIMED_OUT", Failure.LOST) == "TIMED_OUT"


def test_every_state_but_the_last_has_a_way_on_and_completed_is_final() -> None:
    ways = {(machine, before) for machine, before, _ in TRANSITIONS}
    assert ("task_run", "COMPLETED") not in ways
    assert ("goal_run", "COMPLETED") not in ways
    assert all(("task_run", state) in ways for state in TaskRunState if state is not TaskRunState.COMPLETED)


def poisoned(turns: int, attempts: int) -> list[int | None]:
    """From which epoch each attempt goes on, if whatever is resumed after so many turns dies before its next one."""
    ways = {1: Way(1, None, 1, turns)}
    chosen: list[int | None] = [None]
    for epoch in range(2, attempts + 1):
        this = ways[epoch - 1]
        goes_on = source(this, ways.get(this.resumed_from or 0))
        chosen.append(goes_on)
        ways[epoch] = Way(epoch, goes_on, turns + 1 if goes_on else 1, turns)
    return chosen


def test_a_poisoned_transcript_is_given_up() -> None:
    assert poisoned(turns=4, attempts=8) == [None, 1, 2, None, 4, 5, None, 7]


def test_a_poisoned_transcript_loops_without_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above."""
    monkeypatch.setattr(rules, "is_stuck", lambda _: False)
    assert None not in poisoned(turns=4, attempts=50)[1:]


def test_what_an_attempt_goes_on_from() -> None:
    assert source(Way(1, None, 1, 0), None) is None, "it was never answered: there is nothing to go on with"
    assert source(Way(1, None, 1, 3), None) == 1
    assert source(Way(3, 1, 1, 0), Way(1, None, 1, 3)) == 1, "it never began: from where it would have gone on"
    assert source(Way(2, 1, 4, 3), Way(1, None, 1, 3)) == 2, "stuck once"
    assert source(Way(3, 2, 4, 3), Way(2, 1, 4, 3)) is None, "stuck twice"
    assert source(Way(3, 2, 4, 4), Way(2, 1, 4, 3)) == 3, "a new turn since"
    assert source(Way(4, 3, 5, 4), Way(3, 2, 4, 4)) == 4, "stuck once, at another turn"
