"""Every migration meets a database at work of the version before: nothing is lost, nothing changes, and it works on."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include import settings as settings_module
from include.database.migrate import migrate, upgrade
from include.database.unit_of_work import Connection, transaction
from include.errors import IllegalTransition
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.rules import TRANSITIONS
from tests.kit import build

ROWS = Path(__file__).parent / "rows_of_0001.sql"
JUDGE = "SELECT standing(l, '30 s', '60 s', '30 s') AS s FROM leases l WHERE sandbox = %s"


@pytest.fixture
def old(servers: Settings) -> Iterator[Settings]:
    """A database of version 0001 with rows in every table."""
    name = f"m_{secrets.token_hex(6)}"
    admin = os.environ["AIRLOCK_TEST_ADMIN_DSN"]
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} OWNER airlock_owner")
    os.environ["AIRLOCK_PG_DATABASE"] = name
    settings_module.settings.cache_clear()
    settings = settings_module.settings()
    upgrade(settings, "0001")
    with psycopg.connect(settings.dsn("owner")) as connection:
        connection.execute(ROWS.read_text())
    yield settings
    del os.environ["AIRLOCK_PG_DATABASE"]
    settings_module.settings.cache_clear()
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _content(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    with transaction("owner") as connection:
        tables = [row["tablename"] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        return {
            table: [row["r"] for row in connection.execute(f"SELECT to_jsonb(t) AS r FROM {table} t ORDER BY t::text")]
            for table in tables
            if table not in ("airlock_version", "transitions")
        }


def test_nothing_is_lost_on_the_way_to_the_newest_version(old: Settings) -> None:
    before = _content(old)
    assert [table for table, rows in before.items() if not rows] == [], "the fixture leaves no table empty"
    migrate(old, TRANSITIONS)
    migrate(old, TRANSITIONS)  # a second time changes nothing
    after = _content(old)
    for table, rows in before.items():
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert sorted(map(str, kept)) == sorted(map(str, rows)), table


def begin_in_the_middle(connection: Connection) -> None:
    """By raw SQL, an attempt that begins as DONE."""
    build.twins(connection, "attempts", "t.task_run = 'g1-parser' AND t.epoch = 1", epoch="2", state="'DONE'")


def test_what_was_at_work_goes_on(old: Settings) -> None:
    migrate(old, TRANSITIONS)
    with transaction("airflow") as connection:
        assert connection.execute(JUDGE, ["airlock-g1-parser-1"]).fetchone() == {"s": None}
        assert connection.execute(JUDGE, ["airlock-g2-table-1"]).fetchone() == {"s": "ended"}
        connection.execute(
            "UPDATE task_runs SET state = 'PENDING_RETRY', due_at = clock_timestamp(), resume_from = 1 WHERE id = 'g1-parser'"
        )
        tasks.lock(connection, "g1", "new")
        event = connection.execute("SELECT from_state, to_state FROM task_events ORDER BY id DESC LIMIT 1").fetchone()
    assert event == {"from_state": None, "to_state": "PENDING"}
    with transaction("broker") as connection:
        connection.execute("SELECT beat('broker/jarvis', '5 s')")
        connection.execute("UPDATE leases SET taken = taken + '{[1,3)}'::int8multirange, heartbeat_at = clock_timestamp()")
    with transaction("owner") as connection:
        connection.execute("UPDATE leases SET expires_at = clock_timestamp() - interval '1 s' WHERE goal_run = 'g1'")
        assert connection.execute(JUDGE, ["airlock-g1-parser-1"]).fetchone() == {"s": None}, "its broker has just come back: calm"
        judged = JUDGE.replace("'30 s', '60 s'", "'0 s', '60 s'")
        assert connection.execute(judged, ["airlock-g1-parser-1"]).fetchone() == {"s": "expired"}
    with pytest.raises(IllegalTransition), transaction("owner") as connection:
        connection.execute("UPDATE task_runs SET state = 'PENDING' WHERE id = 'g2-table'")
    with pytest.raises(IllegalTransition), transaction("owner") as connection:
        begin_in_the_middle(connection)


def test_without_the_second_version_a_state_may_begin_anywhere(old: Settings) -> None:
    # Control of the test above: it is the migration that refuses a beginning in the middle.
    with transaction("owner") as connection:
        begin_in_the_middle(connection)
