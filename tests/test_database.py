"""The database holds the invariants: transitions, append-only plans, growing epochs, no overspend, rights of each role."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory
from psycopg.rows import dict_row

from include.database.migrate import MIGRATIONS, migrate, newest
from include.database.unit_of_work import Connection, kept_connections, transaction
from include.errors import IllegalTransition
from include.settings import Settings
from include.tasks.models import AttemptState, GoalRunState, TaskRunState
from include.tasks.rules import TRANSITIONS
from tests.conftest import wait_until
from tests.kit import build
from tests.kit.servers import fresh_database, settings_of


@pytest.fixture(scope="module")
def refusing(servers: Settings) -> Iterator[str]:
    """A database with one goal run, for all that is refused: nothing changes it."""
    with fresh_database() as name:
        with settings_of(name):
            seed()
        yield name


@pytest.fixture
def a_goal_run(refusing: str) -> Iterator[str]:
    """The goal run that nothing may change."""
    with settings_of(refusing):
        yield "g1"


@pytest.fixture
def goal_run(settings: Settings) -> str:
    """One goal run, in a database of the test's own."""
    return seed()


def seed() -> str:
    """Make a goal run as the owner."""
    with transaction("owner") as connection:
        build.ground(connection)
        build.node(connection)
        goal = build.goal(connection, "g", budget_usd=1e-4)
        build.plan(connection, goal.id, "{}")
        build.run(connection, goal, "g1")
        build.task(connection, "g1", "a", TaskRunState.LEASED)
    with transaction("cli") as connection:
        connection.execute("INSERT INTO audit_log (actor, action, subject) VALUES ('me', 'goal.submitted', 'g1')")
    return "g1"


MACHINES: list[tuple[str, str, str, Any]] = [
    ("goal_run", "goal_runs", "id = 'g1'", GoalRunState),
    ("task_run", "task_runs", "id = 'g1-a'", TaskRunState),
    ("attempt", "attempts", "task_run = 'g1-a'", AttemptState),
]


@pytest.mark.parametrize(("machine", "table", "where", "states"), MACHINES)
def test_every_pair_of_states_by_raw_sql(goal_run: str, machine: str, table: str, where: str, states: Any) -> None:
    allowed = {(before, after) for kind, before, after in TRANSITIONS if kind == machine and before}
    merged = ", merged_commit = CASE WHEN %s = 'COMPLETED' THEN 'c' END" if machine == "task_run" else ""
    refused = 0
    for before, after in itertools.product(states, states):
        with transaction("owner") as connection:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER guard")
            connection.execute(f"UPDATE {table} SET state = %s{merged} WHERE {where}", [before, before] if merged else [before])
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER guard")
        try:
            with transaction("owner") as connection:
                connection.execute(f"UPDATE {table} SET state = %s{merged} WHERE {where}", [after, after] if merged else [after])
            assert before == after or (before, after) in allowed, f"{before} -> {after} was let through"
        except IllegalTransition:
            refused += 1
            assert (before, after) not in allowed
    assert refused == len(states) ** 2 - len(states) - len(allowed)


def test_without_the_trigger_an_illegal_transition_passes(goal_run: str) -> None:
    # Negative control of the test above: what refuses is the trigger and nothing else.
    with transaction("owner") as connection:
        connection.execute("ALTER TABLE goal_runs DISABLE TRIGGER guard")
        connection.execute("UPDATE goal_runs SET state = 'COMPLETED' WHERE id = 'g1'")


TWINS: dict[str, dict[str, str]] = {
    "goal_run": {"id": "'g2'", "run_id": "'r2'"},
    "task_run": {"id": "'g1-b'", "key": "'b'"},
    "attempt": {"epoch": "2"},
}
"""What tells a second row of each machine from the first one."""


def begin(connection: Connection, machine: str, table: str, state: str) -> None:
    """By raw SQL, a second row that begins in a state."""
    merged = {"merged_commit": "'c'"} if state == "COMPLETED" and machine == "task_run" else {}
    build.twins(connection, table, **TWINS[machine], **merged, state=f"'{state}'")


@pytest.mark.parametrize(("machine", "table", "where", "states"), MACHINES)
def test_every_beginning_by_raw_sql(goal_run: str, machine: str, table: str, where: str, states: Any) -> None:
    allowed = {after for kind, before, after in TRANSITIONS if kind == machine and not before}
    begun = set()
    for state in states:
        try:
            with transaction("owner") as connection:
                begin(connection, machine, table, state)
                begun.add(state)
                connection.rollback()
        except IllegalTransition:
            pass
    assert begun == allowed and len(begun) < len(states)
    with transaction("owner") as connection:  # control: without the trigger each of them begins
        connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER guard")
        for state in states:
            with connection.transaction(force_rollback=True):
                begin(connection, machine, table, state)


def test_each_transition_writes_its_event(goal_run: str) -> None:
    with transaction("airflow") as connection:
        connection.execute("UPDATE goal_runs SET state = 'PLANNING', reason = 'because' WHERE id = 'g1'")
        events = connection.execute(
            "SELECT from_state, to_state, detail FROM task_events WHERE machine = 'goal_run' ORDER BY id"
        ).fetchall()
    assert [tuple(event.values()) for event in events] == [(None, "SUBMITTED", ""), ("SUBMITTED", "PLANNING", "because")]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE plans SET document = 'x'",
        "DELETE FROM plans",
        "UPDATE task_runs SET epoch = -1",
        "UPDATE goal_runs SET spent_micro = 60, reserved_micro = 41",
        "UPDATE task_runs SET merged_commit = 'c'",
        "INSERT INTO plans (goal, revision, sha256, document) SELECT goal, 1, 'h', '{}' FROM plans",
        "UPDATE audit_log SET actor = 'x'",
        "UPDATE audit_log SET hash = repeat('0', 64)",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "INSERT INTO audit_log (actor, action, subject, position, previous, hash) VALUES ('a', 'a', 's', 9, 'p', 'h')",
        "UPDATE goal_runs SET reserved_micro = -1",
        "INSERT INTO notices (key, kind, words) VALUES ('k', 'warning', 'w'), ('k', 'warning', 'w')",
    ],
)
def test_the_database_refuses(a_goal_run: str, statement: str) -> None:
    with pytest.raises(psycopg.Error), transaction("owner") as connection:
        connection.execute(statement)


ROLES = ("airflow", "broker", "warden", "gatekeeper", "cli", "viewer")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("airflow", "SELECT * FROM attempt_keys"),
        ("airflow", "UPDATE verdicts SET green = true"),
        ("airflow", "UPDATE model_calls SET cost_micro = 0"),
        ("broker", "INSERT INTO verdicts SELECT * FROM verdicts"),
        ("broker", "UPDATE task_runs SET merged_commit = 'c'"),
        ("broker", "UPDATE leases SET expires_at = now()"),
        ("warden", "UPDATE leases SET revoked_at = null"),
        ("warden", "UPDATE task_runs SET state = 'COMPLETED'"),
        ("warden", "SELECT * FROM transcripts"),
        ("gatekeeper", "SELECT * FROM leases"),
        ("gatekeeper", "UPDATE verdicts SET tree = 'x'"),
        ("cli", "SELECT * FROM attempt_keys"),
        ("cli", "DELETE FROM task_events"),
        *((role, "DELETE FROM transitions") for role in ROLES),
        *((role, "INSERT INTO transitions VALUES ('attempt', '', 'DONE')") for role in ROLES),
        *((role, "INSERT INTO pulses VALUES ('broker/x', now(), now())") for role in ROLES),
        *((role, "UPDATE pulses SET steady_since = now()") for role in ROLES),
        *((role, "SELECT beat('broker/x', '5 s')") for role in ("airflow", "gatekeeper", "cli", "viewer")),
        *((role, "UPDATE audit_log SET actor = 'x'") for role in ROLES),
        *((role, "DELETE FROM audit_log") for role in ROLES),
        *((role, "TRUNCATE audit_log") for role in ROLES),
        *((role, "INSERT INTO audit_log (actor, action, subject, position) VALUES ('a', 'a', 's', 1)") for role in ROLES),
        *((role, "INSERT INTO audit_log (actor, action, subject, hash) VALUES ('a', 'a', 's', 'h')") for role in ROLES),
        *((role, "INSERT INTO audit_log (actor, action, subject, at) VALUES ('a', 'a', 's', now())") for role in ROLES),
        *((role, "ALTER TABLE audit_log DISABLE TRIGGER ALL") for role in ROLES),
        *((role, "INSERT INTO audit_log (actor, action, subject) VALUES ('a', 'a', 's')") for role in ("gatekeeper", "viewer")),
        ("viewer", "SELECT * FROM attempt_keys"),
        *((role, "SELECT prune('90 days', '30 days', 1)") for role in ("broker", "warden", "gatekeeper", "viewer")),
        *(
            (role, "INSERT INTO notices (key, kind, words) VALUES ('k', 'warning', 'w')")
            for role in ("warden", "gatekeeper", "cli", "viewer")
        ),
        *((role, "UPDATE notices SET words = ''") for role in ROLES),
        *((role, "DELETE FROM notices") for role in ROLES),
        *((role, "DELETE FROM merges") for role in ROLES),
        *((role, "UPDATE decisions SET decision = 'permit'") for role in ROLES),
        *((role, "DELETE FROM model_calls") for role in ROLES),
        *((role, "UPDATE leases SET excess_micro = 0") for role in ("warden", "gatekeeper", "cli", "viewer")),
        *((role, "UPDATE leases SET taken = '{}'") for role in ("warden", "gatekeeper", "cli", "viewer")),
        *((role, "UPDATE task_runs SET due_at = null, resume_from = 1") for role in ("broker", "warden", "gatekeeper", "cli", "viewer")),
    ],
)
def test_a_role_may_do_only_its_job(a_goal_run: str, role: str, statement: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction(role) as connection:
        connection.execute(statement)


def backends() -> set[int]:
    """Which backends this thread's transactions had, one after the other."""
    found = set()
    for _ in range(3):
        with transaction("airflow") as connection:
            found.add(connection.info.backend_pid)
    return found


def test_a_step_keeps_one_connection(settings: Settings) -> None:
    assert len(backends()) == 3  # control: else each transaction has its own
    with kept_connections():
        backends()
        with transaction("airflow") as outer, transaction("airflow") as inner:
            assert outer.info.backend_pid != inner.info.backend_pid  # a transaction inside a transaction is another one
        (first,) = backends()
        with pytest.raises(ZeroDivisionError), transaction("airflow") as connection:
            connection.execute("CREATE TEMPORARY TABLE undone ()")
            raise ZeroDivisionError
        (second,) = backends()
        with psycopg.connect(settings.dsn("airflow"), row_factory=dict_row) as connection:
            connection.execute("SELECT pg_terminate_backend(%s)", [second])
            ended = connection.execute("SELECT count(*) AS n FROM pg_stat_activity WHERE pid = %s", [first]).fetchone()
        wait_until("the server has closed it", lambda: backends() != {second}, 10)
        assert len(backends()) == 1  # and nobody noticed
        assert ended is not None and ended["n"] == 0  # what failed is closed, not used again
    assert len(backends()) == 3
    with transaction("owner") as connection:
        left = connection.execute("SELECT count(*) AS n FROM pg_stat_activity WHERE usename = 'airlock_airflow'").fetchone()
    assert left is not None and left["n"] == 0


def test_the_newest_migration_is_known_without_alembic() -> None:
    """A start compares the database's version with the names of the files; Alembic says the same."""
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert newest() == scripts.get_current_head()
    assert all(revision.revision == Path(revision.path).name.partition("_")[0] for revision in scripts.walk_revisions())


def test_a_database_that_is_behind_is_migrated(settings: Settings) -> None:
    """Control of the shortcut: with an older version in its table the migrations run (and meet what is there already)."""
    with psycopg.connect(settings.dsn("owner"), autocommit=True) as owner:
        version = owner.execute("SELECT version_num FROM airlock_version").fetchone()
        assert version == (newest(),)
        migrate(settings, TRANSITIONS)  # nothing is due
        owner.execute("UPDATE airlock_version SET version_num = '0001'")
        try:
            with pytest.raises(Exception, match="already exists"):
                migrate(settings, TRANSITIONS)
        finally:
            owner.execute("UPDATE airlock_version SET version_num = %s", version)
