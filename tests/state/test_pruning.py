"""Pruning on real rows: what is old goes; what is young or lives stays, and so do money, decisions, verdicts, merges and the audit log."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.database.migrate import migrate
from include.database.unit_of_work import Connection, transaction
from include.goals import pruning
from include.governance import service as governance
from include.repository import bundles
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.rules import TRANSITIONS
from tests.kit import build
from tests.state.test_migrations import old  # noqa: F401 - a fixture: g1 is at work, g2 has ended
from tests.state.world import make_mirror

KEPT = (
    "goals",
    "plans",
    "goal_runs",
    "task_runs",
    "attempts",
    "leases",
    "evidence",
    "model_calls",
    "decisions",
    "verdicts",
    "merges",
    "reworks",
    "audit_log",
)


def _transact(work: Callable[[Connection], Any]) -> Any:
    with transaction("cli") as connection:
        return work(connection)


def _ended(days: float, run: str = "g2") -> None:
    with transaction("owner") as connection:
        connection.execute(
            "UPDATE goal_runs SET ended_at = clock_timestamp() - make_interval(secs => %s) WHERE id = %s", [days * 86_400, run]
        )


def _counts(run: str) -> dict[str, int]:
    with transaction("owner") as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM task_events WHERE subject LIKE %(run)s || '%%') AS events,"
            " (SELECT count(*) FROM processed_messages WHERE task_run LIKE %(run)s || '-%%') + (SELECT count(*) FROM outbox WHERE task_run LIKE %(run)s || '-%%') AS messages,"
            " (SELECT count(*) FROM transcripts WHERE task_run LIKE %(run)s || '-%%') AS transcripts, (SELECT count(*) FROM notices WHERE goal_run = %(run)s) AS notices,"
            " (SELECT count(*) FROM artifacts WHERE goal_run = %(run)s AND type = 'log') + (SELECT count(*) FROM evidence e JOIN leases l ON l.id = e.lease WHERE l.goal_run = %(run)s AND e.log <> '') AS logs,"
            " (SELECT count(*) FROM attempt_keys k JOIN leases l ON l.id = k.lease WHERE l.goal_run = %(run)s) AS keys",
            {"run": run},
        ).fetchone()
    assert row is not None
    return row


def _kept() -> dict[str, Any]:
    with transaction("owner") as connection:
        return {table: connection.execute(f"SELECT count(*) AS n FROM {table}").fetchone() for table in KEPT}


@pytest.fixture
def rows(old: Settings, tmp_path: Path) -> Settings:  # noqa: F811
    """Both goal runs with a row of everything that is pruned."""
    migrate(old, TRANSITIONS)
    with transaction("owner") as connection:
        connection.execute(
            "INSERT INTO notices (key, kind, goal_run, words) VALUES ('a', 'warning', 'g1', 'w'), ('b', 'warning', 'g2', 'w')"
        )
        connection.execute("INSERT INTO attempt_keys SELECT id, decode(repeat('ab', 32), 'hex'), decode(repeat('cd', 32), 'hex') FROM leases"
                           " WHERE sandbox = 'airlock-g2-table-1'")  # fmt: skip
        connection.execute("INSERT INTO outbox (agent, task_run, epoch, seq, idempotency_key, type, body, signature)"
                           " VALUES ('jarvis', 'g2-table', 1, 1, 'assign:g2-table/1', 'task.assign', '{}', 's')")  # fmt: skip
        governance.record(connection, "ada", "goal.submitted", "g2")
    return old.model_copy(update={"home": tmp_path})


def _check(rows: Settings) -> None:
    """The whole promise, at four ages of the goal run that has ended."""
    live, all_of_it, kept = _counts("g1"), _counts("g2"), _kept()
    assert all(all_of_it.values()) and live["keys"] == 1
    _ended(20)
    assert pruning.prune(_transact, rows)["runs"] == 0
    assert _counts("g2") == {**all_of_it, "keys": 0}  # keys go with their lease, at once
    _ended(40)
    gone = pruning.prune(_transact, rows)
    assert (gone["runs"], gone["transcripts"], gone["logs"], gone["events"]) == (1, 1, 2, 0)
    assert _counts("g2") == {**all_of_it, "keys": 0, "transcripts": 0, "logs": 0}
    assert pruning.prune(_transact, rows)["runs"] == 0  # once
    _ended(100)
    with transaction("owner") as connection:
        connection.execute("UPDATE goal_runs SET transcripts_pruned_at = ended_at + interval '1 s' WHERE id = 'g2'")
    gone = pruning.prune(_transact, rows)
    assert gone["runs"] == 1 and gone["events"] == all_of_it["events"] and gone["notices"] == 1
    assert not any(_counts("g2").values())
    assert _counts("g1") == live and _kept() == kept


def test_what_is_old_goes_and_all_else_stays(rows: Settings) -> None:
    _check(rows)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("g.ended_at < transcripts_before", "COALESCE(g.ended_at, '-infinity') < transcripts_before"),  # also what has not ended
        ("DELETE FROM attempt_keys k USING leases l WHERE l.id = k.lease AND l.ended_at IS NOT NULL", "DELETE FROM attempt_keys"),
        ("DELETE FROM task_events WHERE subject = ANY (subjects)", "DELETE FROM task_events"),
        ("DELETE FROM transcripts WHERE task_run = ANY (tasks)", "DELETE FROM decisions WHERE false"),
    ],
)
def test_control_a_broken_prune_is_seen(rows: Settings, right: str, wrong: str) -> None:
    with transaction("owner") as connection:
        row = connection.execute("SELECT pg_get_functiondef('prune(interval, interval, int)'::regprocedure) AS text").fetchone()
        assert row is not None and right in row["text"]
        connection.execute(row["text"].replace(right, wrong))
        # Without its sandbox a run that is at work would look as if it had ended.
        connection.execute("UPDATE leases SET ended_at = clock_timestamp() WHERE goal_run = 'g1' AND %s", ["COALESCE" in wrong])
        connection.execute(
            "DELETE FROM attempt_keys k USING leases l WHERE l.id = k.lease AND l.goal_run = 'g1' AND l.ended_at IS NOT NULL"
        )
    with pytest.raises(AssertionError):
        _check(rows)


def test_a_run_that_is_at_work_again_or_was_opened_again(rows: Settings) -> None:
    _ended(100)
    with transaction("owner") as connection:
        connection.execute("UPDATE leases SET ended_at = NULL WHERE goal_run = 'g2' AND kind = 'verify'")
    before = _counts("g2")
    assert pruning.prune(_transact, rows)["runs"] == 0 and _counts("g2") == {**before, "keys": 0}  # something of it still lives
    with transaction("owner") as connection:
        connection.execute("UPDATE leases SET ended_at = now() WHERE goal_run = 'g2'")
    assert pruning.prune(_transact, rows)["runs"] == 1
    with transaction("owner") as connection:  # opened again since, with new rows, and ended again
        connection.execute(
            "UPDATE goal_runs SET events_pruned_at = ended_at - interval '1 s', transcripts_pruned_at = ended_at - interval '1 s' WHERE id = 'g2'"
        )
        connection.execute("INSERT INTO transcripts (task_run, epoch, position, role, content) VALUES ('g2-table', 2, 1, 'user', '[]')")
    assert pruning.prune(_transact, rows)["transcripts"] == 1


def test_nothing_younger_than_a_day_whatever_is_asked(rows: Settings) -> None:
    _ended(0.9)
    before = _counts("g2")
    with transaction("airflow") as connection:
        connection.execute("SELECT prune('0', '-9 days', 10)")
    assert _counts("g2") == {**before, "keys": 0}
    _ended(1.1)  # control
    with transaction("airflow") as connection:
        connection.execute("SELECT prune('0', '-9 days', 10)")
    assert not any(_counts("g2").values())


def test_many_runs_go_in_batches(rows: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with transaction("owner") as connection:
        many, h = "generate_series(1, 220) n", "'h' || n"
        build.twins(connection, "goal_runs", "t.id = 'g2'", many, id=h, dag_id="'d'", run_id=h, state="'SUBMITTED'", ended_at="now() - interval '200 days'",
                    events_pruned_at="NULL", transcripts_pruned_at="NULL")  # fmt: skip
        for run in [row["id"] for row in connection.execute("SELECT id FROM goal_runs WHERE id LIKE 'h%'").fetchall()]:
            tasks.lock(connection, run, "t")
        connection.execute(
            "INSERT INTO task_events (machine, subject, kind) SELECT 'task_run', id, 'milestone' FROM task_runs, generate_series(1, 400)"
        )
        connection.execute(
            "INSERT INTO transcripts (task_run, epoch, position, role, content) SELECT id, 1, n, 'user', '[]' FROM task_runs, generate_series(2, 50) n"
        )
    with transaction("owner") as connection:
        connection.execute("ANALYZE")
    begun = time.monotonic()
    gone = pruning.prune(_transact, rows)
    with capsys.disabled():
        print(f"\n  {gone['runs']} runs, {gone['events']:,} events, {gone['transcripts']:,} turns in {time.monotonic() - begun:.1f} s")
    assert gone["runs"] == 220 and gone["events"] == 220 * 402 and gone["transcripts"] == 220 * 49


def test_files_of_ended_runs_go_and_others_stay(rows: Settings) -> None:
    rows.handins_dir.mkdir()
    rows.bundles_dir.mkdir()
    with transaction("owner") as connection:
        lease = {row["sandbox"]: str(row["id"]) for row in connection.execute("SELECT id, sandbox FROM leases")}
        connection.execute("UPDATE leases SET input_commit = 'c2' WHERE goal_run = 'g2' AND kind = 'work'")
    handins = {
        name: rows.handins_dir / name for name in (lease["airlock-g1-parser-1"], lease["airlock-g2-table-1"], "nobody-knows-it", "young")
    }
    commits = {name: rows.bundles_dir / f"{name}.bundle" for name in ("c0", "c2", "c3")}  # c0: g1 begins from it
    for path in (*handins.values(), *commits.values()):
        path.write_bytes(b"x")
        if path.name != "young":
            os.utime(path, (time.time() - 31 * 86_400,) * 2)
    _ended(29)
    gone = pruning.prune(_transact, rows)
    assert (gone["handins"], gone["bundles"]) == (1, 1)  # those that no lease knows
    _ended(31)
    gone = pruning.prune(_transact, rows)
    assert (gone["handins"], gone["bundles"]) == (1, 1)
    assert [path.name for path in sorted(rows.handins_dir.iterdir())] == sorted([lease["airlock-g1-parser-1"], "young"])
    assert [path.name for path in rows.bundles_dir.iterdir()] == ["c0.bundle"]


def test_a_bundle_that_is_asked_for_is_young_again(rows: Settings) -> None:
    make_mirror(rows.home)
    mirror = rows.mirrors_dir / "sample.git"
    commit = bundles.git.text(["rev-parse", "main"], mirror).strip()
    bundle = bundles.export_bundle(rows, mirror, commit)
    os.utime(bundle, (0, 0))
    assert bundles.export_bundle(rows, mirror, commit) == bundle
    assert pruning.prune(_transact, rows)["bundles"] == 0 and bundle.exists()
    os.utime(bundle, (0, 0))  # control: nobody asked
    assert pruning.prune(_transact, rows)["bundles"] == 1 and not bundle.exists()
