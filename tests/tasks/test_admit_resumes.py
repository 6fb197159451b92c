"""What the attempt after a failed one begins with: the admit step on real PostgreSQL and git, from the hand-in that the warden kept."""

from __future__ import annotations

import pytest

from include.database.unit_of_work import transaction
from include.repository import trees
from include.tasks import resume, rules
from include.tasks.models import AttemptRef, Failure
from tests.kit import build
from tests.tasks.conftest import World


def not_yet(said: object) -> bool:
    """Whether the step says that it must wait."""
    from include.flow.waiting import NotYet  # Airflow: seconds of CPU, also where no test of these runs

    return isinstance(said, NotYet)


def test_a_lost_attempt_is_resumed_from_what_it_had_committed(world: World) -> None:
    assert world.admit()["input_commit"] == world.base
    tip = world.loses(turns=3, commit={"b.py": "B = 1\n"})
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"], lease["epoch"]) == (tip, 1, 2)
    assert world.row["accepted_commit"] == tip == trees.resolve(world.mirror, f"refs/tasks/{world.task_run}/1")
    assert (world.settings.bundles_dir / f"{tip}.bundle").exists(), "the warden needs it"
    assert (world.row["resume_from"], world.row["due_at"], world.row["due_ti"]) == (None, None, None)
    # and again, from commit to commit
    second = world.loses(turns=4, commit={"c.py": "C = 1\n"})
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"]) == (second, 2)
    assert trees.is_ancestor(world.mirror, str(tip), str(second))


def test_without_session_persistence_it_starts_over(world: World, forgetful: None) -> None:
    """Negative control of the test above: what resumes is the worker definition's word and nothing else."""
    world.admit()
    world.loses(turns=3, commit={"b.py": "B = 1\n"})
    assert world.row["resume_from"] is None
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"]) == (world.base, None)


def test_without_a_commit_it_goes_on_from_where_the_lost_one_began(world: World) -> None:
    world.admit()
    world.loses(turns=2)
    world.commit_on_goal_branch({"d.py": "D = 1\n"})
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"]) == (world.base, 1)


def test_without_a_turn_of_the_model_it_starts_over(world: World) -> None:
    world.admit()
    world.loses(turns=0)
    merged = world.commit_on_goal_branch({"d.py": "D = 1\n"})
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"]) == (merged, None)


@pytest.mark.parametrize("how", ["protected path", "no bundle"])
def test_a_refused_bundle_starts_over(world: World, how: str) -> None:
    world.admit()
    world.works(turns=2, commit={".github/workflows/evil.yml": "x\n"} if how == "protected path" else {"b.py": "B = 1\n"})
    if how == "no bundle":
        (world.settings.handins_dir / str(world.lease(1)["id"])).write_bytes(b"# v2 git bundle\nhalf of it")
    world.ends()
    world.fails()
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"]) == (world.base, None)
    assert world.row["accepted_commit"] is None and world.row["feedback"].startswith("Its commits were refused: ")
    assert trees.find(world.mirror, f"refs/tasks/{world.task_run}/1") is None


def test_a_step_that_died_after_the_quarantine_is_done_again(world: World) -> None:
    world.admit()
    tip = world.loses(turns=2, commit={"b.py": "B = 1\n"})
    with transaction("airflow") as connection:
        left = resume.left_behind(connection, AttemptRef(world.task_run, 1))
    assert left is not None and left.handed_in and left.over
    first, again = (resume.take_in(world.settings, world.mirror.stem, left) for _ in range(2))
    assert first == again and first.commit == tip
    assert world.admit()["input_commit"] == tip and world.row["epoch"] == 2


def test_a_step_that_died_after_the_grant_finds_what_it_granted(world: World) -> None:
    """Airflow tries it again: nothing is granted twice, and nobody is said to have cleared anything."""
    world.admit()
    world.loses(turns=2, commit={"b.py": "B = 1\n"})
    lease = world.admit()
    assert world.ask() is None and world.ask() is None
    assert (world.row["epoch"], world.row["state"], world.lease(2)) == (2, "LEASED", lease)
    assert world.rows("SELECT 1 FROM attempts WHERE task_run = %s AND failure = 'person'", world.task_run) == []


def test_after_a_clear_a_step_that_is_tried_again_is_not_taken_for_cleared_once_more(world: World) -> None:
    """The door (or a person) cleared it; then Airflow took the slow step for dead and tried it again. A load may not look like a person."""
    world.admit()
    world.loses(turns=2, commit={"b.py": "B = 1\n"})
    world.rows("UPDATE task_runs SET due_at = now() WHERE id = %s", world.task_run)
    assert world.ask(cleared=True) is None
    lease = world.lease(2)
    assert world.ask() is None and world.ask() is None
    assert (world.row["epoch"], world.row["state"], world.lease(2)) == (2, "LEASED", lease)
    assert world.ask(cleared=True) is None  # control: a clear after the grant is one, and revokes
    assert world.row["epoch"] == 3 and world.lease(2)["revoke_reason"] == "its steps were cleared in Airflow"


def test_after_a_clear_a_step_that_is_tried_again_opens_no_goal_that_was_cancelled(world: World) -> None:
    assert world.ask(cleared=True) is None
    world.rows("UPDATE goal_runs SET state = 'CANCELLED', ended_at = now(), reason = 'a person did' WHERE id = %s", world.run)
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"is CANCELLED: a person did"):
        world.ask()
    assert world.ask(cleared=True) is None  # control: a further clear does open it


def test_a_step_that_died_opens_no_goal_that_was_cancelled_meanwhile(world: World) -> None:
    world.rows("UPDATE goal_runs SET state = 'CANCELLED', ended_at = now(), reason = 'a person did' WHERE id = %s", world.run)
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match=r"is CANCELLED: a person did"):
        world.ask()
    assert world.ask(cleared=True) is None  # control: a clear does open it again


def test_a_clear_after_the_grant_does_not_end_the_session(world: World) -> None:
    world.admit()
    tip = world.loses(turns=2, commit={"b.py": "B = 1\n"})
    world.admit()
    assert world.ask(cleared=True) is None, "the lease that it granted is revoked, and another is granted"
    lease = world.lease(3)
    assert (lease["input_commit"], lease["resumed_from"]) == (tip, 1)
    assert world.lease(2)["revoked_at"] is not None


def test_it_waits_for_what_the_old_sandbox_leaves(world: World) -> None:
    world.admit()
    tip = world.works(turns=2, commit={"b.py": "B = 1\n"})
    world.fails(Failure.LEASE_BROKEN)  # which revokes; the warden has not ended it yet
    said = world.ask("t")
    assert not_yet(said) and said.query == "over" and not world.ready(said)
    world.ends()
    assert world.ready(said) and world.ask("t") is None
    assert world.lease(2)["input_commit"] == tip


def test_it_waits_for_a_dead_warden_half_a_minute_only(world: World) -> None:
    world.admit()
    world.works(turns=2, commit={"b.py": "B = 1\n"})
    world.fails(Failure.LEASE_BROKEN)
    said = world.ask("t")
    world.rows("UPDATE leases SET revoked_at = now() - interval '31 seconds' WHERE task_run = %s", world.task_run)
    assert not_yet(said) and not world.ready(said), "its warden lives, and is at it: a load may not cost what was committed"
    world.rows("UPDATE nodes SET heartbeat_at = now() - interval '31 seconds'")
    with transaction("owner") as connection:
        build.node(connection, "another")
    assert world.ready(said) and world.ask("t") is None
    assert (world.lease(2)["input_commit"], world.lease(2)["resumed_from"]) == (world.base, 1)


def test_it_waits_for_a_warden_that_cannot_end_it_five_minutes_only(world: World) -> None:
    world.admit()
    world.works(turns=2)
    world.fails(Failure.LEASE_BROKEN)
    said = world.ask("t")
    world.rows("UPDATE leases SET revoked_at = now() - interval '299 seconds' WHERE task_run = %s", world.task_run)
    assert not_yet(said) and not world.ready(said)
    world.rows("UPDATE leases SET revoked_at = now() - interval '301 seconds' WHERE task_run = %s", world.task_run)
    assert world.ready(said)


def test_the_delay_is_waited_for_on_postgresqls_clock(world: World) -> None:
    world.admit()
    world.loses(turns=1)  # the first in a row: no delay
    assert world.ask("t1") is None
    world.loses(turns=2)  # the second: 2 s
    said = world.ask("t2")
    assert not_yet(said) and said.query == "due" and not world.ready(said) and "due in 2 s" in said.words
    assert world.row["epoch"] == 2 and world.row["state"] == "PENDING_RETRY"
    world.rows("UPDATE task_runs SET due_at = due_at - interval '2 seconds' WHERE id = %s", world.task_run)
    assert world.ready(said) and world.ask("t2") is None
    assert world.row["epoch"] == 3


def test_a_persons_clear_does_not_wait(world: World) -> None:
    world.admit()
    world.fails(Failure.MODEL_AWAY)
    assert not_yet(world.ask("t1")) and not_yet(world.ask("t1"))
    assert world.ask("t2", cleared=True) is None, "another task instance: a person cleared the one that waited"
    assert world.row["epoch"] == 2


def test_the_same_task_instance_waits_however_often_it_asks(world: World) -> None:
    """Negative control of the test above."""
    world.admit()
    world.fails(Failure.MODEL_AWAY)
    assert all(not_yet(world.ask("t1", cleared=True)) for _ in range(3))
    assert world.row["epoch"] == 1


def test_failures_in_a_row_are_of_one_class(world: World) -> None:
    delays = []
    for failure in (Failure.LOST, Failure.LOST, Failure.RED, Failure.LOST, Failure.NEVER_STARTED, Failure.NEVER_STARTED, Failure.LOST):
        world.admit()
        world.fails(failure)
        delays.append(
            world.rows("SELECT round(extract(epoch FROM due_at - updated_at)) AS s FROM task_runs WHERE id = %s", world.task_run)[0]["s"]
        )
    assert delays == [0, 2, 0, 0, 2, 4, 0]


def test_after_a_conflict_what_was_accepted_is_forgotten(world: World) -> None:
    world.admit()
    tip = world.loses(turns=2, commit={"b.py": "B = 1\n"})
    assert world.admit()["input_commit"] == tip == world.row["accepted_commit"]
    merged = world.commit_on_goal_branch({"b.py": "B = 2\n"})
    world.works(turns=3)
    world.ends()
    world.fails(Failure.CONFLICT, "Start from the files as they are now.")
    assert world.admit()["input_commit"] == merged and world.lease(3)["resumed_from"] is None
    # Also when the next one is lost before it began: first light went back to the commit that conflicts.
    world.loses(turns=0)
    assert world.admit()["input_commit"] == merged


def test_red_starts_over_from_the_accepted_commit_with_feedback(world: World) -> None:
    world.admit()
    tip = world.loses(turns=2, commit={"b.py": "B = 1\n"})
    world.admit()
    world.works(turns=3)
    world.ends()
    world.fails(Failure.RED, "The gate refused your work.")
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"], world.row["feedback"]) == (tip, None, "The gate refused your work.")


def test_feedback_outlives_a_loss_and_a_worker_that_gave_up_says_why(world: World) -> None:
    world.admit()
    world.fails(Failure.RED, "The gate refused your work.")
    world.admit()
    world.fails(Failure.LOST)
    assert world.row["feedback"] == "The gate refused your work."
    world.admit()
    world.fails(Failure.WORKER_FAILED)
    assert world.row["feedback"] == "it was worker_failed"


def test_an_attempt_that_never_started_does_not_end_the_session(world: World) -> None:
    world.admit()
    tip = world.loses(turns=2, commit={"b.py": "B = 1\n"})
    world.admit()
    world.ends()
    world.fails(Failure.NEVER_STARTED)
    lease = world.admit()
    assert (lease["input_commit"], lease["resumed_from"]) == (tip, 1)


def stuck(world: World, attempts: int) -> list[int | None]:
    """Which epoch each attempt goes on from, if each dies at the same turn."""
    chosen = []
    for _ in range(attempts):
        chosen.append(world.admit()["resumed_from"])
        world.loses(turns=2)
    return chosen


@pytest.mark.slow
def test_a_poisoned_transcript_starts_over(world: World) -> None:
    assert stuck(world, 6) == [None, 1, 2, None, 4, 5]


@pytest.mark.slow
def test_a_poisoned_transcript_is_not_given_up_without_the_guard(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control of the test above."""
    monkeypatch.setattr(rules, "is_stuck", lambda _: False)
    assert stuck(world, 6) == [None, 1, 2, 3, 4, 5]
