"""What chaos asks the database: a sound database shows nothing, and each broken one is seen. Also R2's control: a merge without its epoch check."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from include.database.unit_of_work import transaction
from include.drills.chaos import rules, store
from include.drills.chaos.models import Overspent, Stale, Stored
from include.errors import IllegalTransition, StaleEpoch
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import TaskRunState
from tests.broker.conftest import Yard, yard
from tests.kit import build
from tests.merge.world import RUN, World

__all__ = ["yard"]


def looked() -> Stored:
    with transaction("owner") as connection:
        return store.ends(connection)


def broken_by(*statements: str) -> Stored:
    """What chaos sees after these statements, with the walls that would refuse them taken down."""
    with transaction("owner") as connection:
        for statement in statements:
            connection.execute(statement)
    return looked()


CALL = (
    "INSERT INTO model_calls (id, agent, goal_run, task_run, epoch, lease, request, purpose, model, address, offline, state, owner, reserved_micro,"
    " cost_micro, price_table) SELECT gen_random_uuid(), 'jarvis', goal_run, task_run, epoch, id, 'r' || random(), 'work', 'm', 'a', false, '{state}',"
    " 'o', 500, {cost}, 'p' FROM leases"
)


def test_a_sound_database_shows_nothing(yard: Yard) -> None:
    yard.attempt()
    found = looked()
    assert found.overspent == Overspent() and found.stale == Stale() and found.open_calls == 0
    assert [run.ended for run in found.runs] == [False]


def test_what_was_taken_for_a_person_or_unwatched_is_seen(yard: Yard) -> None:
    yard.attempt()
    assert looked().taken == ()
    assert len(broken_by("UPDATE leases SET revoked_at = now(), revoke_reason = 'its steps were cleared in Airflow'").taken) == 1
    assert broken_by("UPDATE leases SET revoke_reason = 'the goal run has ended'").taken == ()
    assert len(broken_by("INSERT INTO evidence (lease, because) SELECT id, 'unwatched' FROM leases LIMIT 1").taken) == 1


@pytest.mark.parametrize(
    ("kind", "statements"),
    [
        ("goal_runs", ["ALTER TABLE goal_runs DROP CONSTRAINT goal_runs_check", "UPDATE goal_runs SET spent_micro = budget_micro + 1"]),
        ("goal_runs_by_their_calls", [CALL.format(state="settled", cost=100)]),
        ("goal_runs_with_a_reserve", ["UPDATE goal_runs SET reserved_micro = 1"]),
        ("leases", ["ALTER TABLE leases DROP CONSTRAINT leases_check", "UPDATE leases SET spent_micro = max_micro + 1"]),
        ("leases_by_their_calls", ["UPDATE leases SET spent_micro = 1"]),
        ("task_runs_by_their_calls", ["UPDATE task_runs SET spent_micro = 1"]),
        ("agent_days", ["UPDATE agents SET day_budget_micro = 10", CALL.format(state="settled", cost=100)]),
    ],
)
def test_overspend_and_sums_that_do_not_agree_are_seen(yard: Yard, kind: str, statements: list[str]) -> None:
    yard.attempt()
    assert broken_by(*statements).overspent.model_dump()[kind] == 1


def test_open_calls_are_seen(yard: Yard) -> None:
    yard.attempt()
    assert broken_by(CALL.format(state="sent", cost="NULL")).open_calls == 1


def test_a_message_and_a_call_of_an_older_epoch_are_seen(yard: Yard) -> None:
    goal = yard.goal_run()
    yard.attempt(goal)
    yard.rows("UPDATE leases SET revoked_at = now(), ended_at = now()")
    yard.attempt(goal, epoch=2)
    message = (
        "INSERT INTO processed_messages (task_run, epoch, seq, idempotency_key, message_id, type, body_sha256)"
        " SELECT task_run, 1, 1, 'k', gen_random_uuid(), 'progress', 'h' FROM attempts WHERE epoch = 1"
    )
    found = broken_by(message, CALL.format(state="settled", cost=0) + " WHERE epoch = 1")
    assert (found.stale.messages, found.stale.model_calls) == (1, 1)


def test_a_changed_and_a_cut_audit_log_are_seen(yard: Yard) -> None:
    for number in range(4):
        yard.rows("INSERT INTO audit_log (actor, action, subject) VALUES ('me', 'did', %s)", str(number))
    assert looked().audit.whole and looked().audit.entries == 4
    changed = broken_by("ALTER TABLE audit_log DISABLE TRIGGER ALL", "UPDATE audit_log SET subject = 'x' WHERE position = 3")
    assert changed.audit.broken_at == 3
    cut = broken_by("DELETE FROM audit_log WHERE position = 2")
    assert cut.audit.broken_at == 2


def test_an_illegal_transition_is_seen(yard: Yard) -> None:
    worker = yard.attempt()
    assert rules.illegal_transitions(looked().events) == []  # control
    with transaction("owner") as connection:  # from LEASED, with the guard taken down
        connection.execute("ALTER TABLE task_runs DISABLE TRIGGER guard")
        connection.execute("UPDATE task_runs SET state = 'VERIFYING'")
        connection.execute("ALTER TABLE task_runs ENABLE TRIGGER guard")
    assert [words for words in rules.illegal_transitions(looked().events) if worker.task_run in words]
    with pytest.raises(IllegalTransition):
        yard.rows("UPDATE task_runs SET state = 'COMPLETED', merged_commit = 'c'")


def test_r2_a_stale_epoch_merges_nothing_and_without_the_check_it_does(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(settings, tmp_path)
    task_run = world.work("parser", {"parser.py": "PARSED = 1\n"})
    world.verify(task_run)
    with transaction("owner") as connection:  # a newer attempt has taken over
        build.task(connection, RUN, "parser", TaskRunState.PENDING_RETRY)
        assert build.task(connection, RUN, "parser", TaskRunState.MERGE_QUEUE).epoch == 2
    with pytest.raises(StaleEpoch):
        world.merge(task_run)
    assert looked().stale.merges == 0 and looked().merges == ()
    # Control: the same merge with the check taken away lands, and chaos sees it.
    unchecked = {**vars(tasks._SQL), "lock_by_id": tasks._SQL.lock_by_id.replace("epoch", "1 AS epoch")}
    monkeypatch.setattr(tasks, "_SQL", SimpleNamespace(**unchecked))
    world.merge(task_run)
    assert looked().stale.merges == 1
