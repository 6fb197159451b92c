"""The one judgement of a lease: every term alone, which term hides which, what is calm, and its speed with 500 live leases."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest

from include.database.unit_of_work import transaction
from include.settings import Settings
from tests.kit import build
from tests.kit.quiet import Figure


def _rows(settings: Settings, runs: int, tasks: int, live: int) -> None:
    """So many goal runs with so many tasks each, all leased; so many leases of each goal run live, the others have ended."""
    terms = build.TERMS._replace(max_tokens=100)
    with transaction("owner") as connection:
        build.ground(connection)
        build.node(connection, capacity=999)
        build.run(connection, build.goal(connection, "g1"), "g1")
        build.works(connection, build.attempt(connection, build.task(connection, "g1", "t1"), terms))
        for number in range(2, runs + 1):
            build.run(connection, build.goal(connection, f"g{number}"), f"g{number}")
        # Thousands of rows are copies of that one; a lease is judged by its own row and the pulses.
        numbers = f"generate_series(1, {runs}) r, generate_series(1, {tasks}) n"
        its = {"goal_run": "'g' || r", "task_run": "'g' || r || '-t' || n"}
        build.twins(
            connection,
            "task_runs",
            "(r, n) <> (1, 1)",
            numbers,
            id=its["task_run"],
            goal_run=its["goal_run"],
            key="'t' || n",
            state="'PENDING'",
        )
        build.twins(connection, "attempts", "(r, n) <> (1, 1)", numbers, task_run=its["task_run"], state="'SPAWNING'")
        build.twins(connection, "leases", "(r, n) <> (1, 1)", numbers, **its, id="gen_random_uuid()", sandbox="'airlock-g' || r || '-t' || n",
                    ended_at=f"CASE WHEN n > {live} THEN now() END")  # fmt: skip


def _standing(change: str = "", kind: str = "work", calm: str = "0 s", unwatched: str = "60 s", silence: str = "30 s") -> str | None:
    with transaction("owner") as connection:
        connection.execute("UPDATE leases SET ended_at = NULL, revoked_at = NULL, tokens_used = 0, excess_micro = 0, watched_at = now(),"
                           " heartbeat_at = now(), started_at = now(), expires_at = now() + interval '1 hour'")  # fmt: skip
        connection.execute("UPDATE leases SET kind = %s", [kind])
        if change:
            connection.execute(f"UPDATE leases SET {change}")  # type: ignore[call-overload]
        row = connection.execute("SELECT standing(l, %s, %s, %s) AS s FROM leases l", [calm, unwatched, silence]).fetchone()
        assert row is not None
        return row["s"]  # type: ignore[no-any-return]


PAST = "now() - interval '5 minutes'"
TERMS = {
    "": None,
    "ended_at = now()": "ended",
    f"revoked_at = {PAST}": "revoked",
    "tokens_used = 101": "tokens",
    "tokens_used = 100": None,
    "excess_micro = 1": "usd",
    f"watched_at = {PAST}": "unwatched",
    f"expires_at = {PAST}": "expired",
    f"heartbeat_at = {PAST}": "silent",
    f"heartbeat_at = {PAST}, started_at = NULL": None,
    # The warden ends unwatched and expired: no term that only the sensor looks at may stand before them.
    f"tokens_used = 101, excess_micro = 1, watched_at = {PAST}": "unwatched",
    f"tokens_used = 101, excess_micro = 1, expires_at = {PAST}": "expired",
    f"revoked_at = {PAST}, watched_at = {PAST}, expires_at = {PAST}": "revoked",
}


def test_every_term(settings: Settings) -> None:
    _rows(settings, 1, 1, 1)
    assert {change: _standing(change) for change in TERMS} == TERMS
    assert _standing("tokens_used = 101, excess_micro = 1", kind="verify") is None
    assert _standing(f"heartbeat_at = {PAST}", kind="verify") is None
    assert _standing(f"expires_at = {PAST}", kind="verify") == "expired"


def test_what_the_warden_ends_is_what_stands_so(settings: Settings) -> None:
    _rows(settings, 1, 1, 1)
    ended = {}
    for change in TERMS:
        _standing(change)
        with transaction("warden") as connection:
            row = connection.execute("SELECT because FROM what_is_over('local', '0 s', '60 s')").fetchone()
            due = connection.execute("SELECT next_due_s('local', '0 s', '60 s') AS s").fetchone()
        ended[change] = row and row["because"].split(":")[0]
        assert due is not None and (due["s"] is None) == (TERMS[change] == "ended")
        assert (due["s"] or 0) <= 60 and (ended[change] is None or due["s"] <= 0)
    assert ended == {change: term if term in ("revoked", "unwatched", "expired") else None for change, term in TERMS.items()}


@pytest.mark.parametrize("who", ["broker/jarvis", "relay/local"])
def test_calm_while_somebody_is_away_and_after(settings: Settings, who: str) -> None:
    _rows(settings, 1, 1, 1)
    late = f"expires_at = {PAST}, heartbeat_at = {PAST}"

    def pulse(beat: str, steady: str) -> None:
        with transaction("owner") as connection:
            connection.execute("DELETE FROM pulses")
            connection.execute(f"INSERT INTO pulses VALUES (%s, {beat}, {steady})", [who])  # type: ignore[call-overload]

    assert _standing(late) == "expired"  # a pulse that was never there is not waited for
    pulse("now() - interval '11 s'", PAST)
    assert _standing(late) is None and _standing(late, kind="verify") == "expired"
    assert _standing(f"{late}, watched_at = {PAST}") == "unwatched"
    pulse("now()", "now() - interval '3 s'")
    assert _standing(late, calm="0 s") == "expired"
    with transaction("owner") as connection:  # PostgreSQL itself may have started just now: asked of the function alone
        row = connection.execute(
            "SELECT calm_until(l, '5 s') > now() AS calm, calm_until(l, '2 s') > greatest(now(), pg_postmaster_start_time() + interval '2 s') AS over FROM leases l"
        ).fetchone()
    assert row == {"calm": True, "over": False}


BEATS = {  # of Airflow's scheduler: its last beat, since when it is steady, and what a lease is that nobody has watched for five minutes
    "keeps up, and does not watch": ("now()", "now() - interval '61 s'", "unwatched"),
    "did not keep up a moment ago": ("now()", "now() - interval '58 s'", None),
    "is late just now": ("now() - interval '3 s'", PAST, None),
    "is as good as dead": ("now() - interval '58 s'", PAST, None),
    "is dead": ("now() - interval '61 s'", PAST, "unwatched"),
}


def _scheduler(beat: str, steady: str) -> None:
    with transaction("owner") as connection:
        connection.execute("DELETE FROM pulses")
        connection.execute(f"INSERT INTO pulses VALUES ('airflow/scheduler', {beat}, {steady})")  # type: ignore[call-overload]


def _due() -> float:
    with transaction("warden") as connection:
        row = connection.execute("SELECT next_due_s('local', '0 s', '60 s') AS s").fetchone()
        assert row is not None
        return float(row["s"])


@pytest.mark.parametrize("case", BEATS)
@pytest.mark.parametrize("kind", ["work", "verify"])
def test_the_minute_without_a_watch_counts_only_while_airflow_keeps_up(settings: Settings, case: str, kind: str) -> None:
    _rows(settings, 1, 1, 1)
    beat, steady, expected = BEATS[case]
    _scheduler(beat, steady)
    assert _standing(f"watched_at = {PAST}", kind=kind) == expected
    assert (_due() <= 0) is (expected is not None)  # the warden looks again when it may be over, not before
    assert _standing("watched_at = now() - interval '601 s'", kind=kind) == "unwatched"  # ten periods, whatever Airflow does
    assert _standing("watched_at = now() - interval '58 s'", kind=kind) is None


def test_control_without_the_rule_a_busy_airflow_loses_the_attempt(settings: Settings) -> None:
    _rows(settings, 1, 1, 1)
    with transaction("owner") as connection:
        connection.execute("CREATE OR REPLACE FUNCTION unwatched_at(watched_at timestamptz, period interval) RETURNS timestamptz"
                           " LANGUAGE plpgsql STABLE AS $$ BEGIN RETURN watched_at + period; END $$")  # fmt: skip
    _scheduler("now() - interval '3 s'", PAST)
    assert _standing(f"watched_at = {PAST}") == "unwatched"


def test_only_airflows_role_may_beat_for_it(settings: Settings) -> None:
    with transaction("airflow") as connection:
        connection.execute("SELECT airflow_beats()")
        assert connection.execute("SELECT name FROM pulses").fetchall() == [{"name": "airflow/scheduler"}]
    for role in ("broker", "warden", "cli", "gatekeeper"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction(role) as connection:
            connection.execute("SELECT airflow_beats()")


def test_a_beat_after_a_gap_begins_anew_and_without_one_goes_on(settings: Settings) -> None:
    def beat(gap: str) -> Any:
        with transaction("broker") as connection:
            connection.execute("SELECT beat('broker/jarvis', %s)", [gap])
            row = connection.execute("SELECT steady_since FROM pulses").fetchone()
            assert row is not None
            return row["steady_since"]

    first = beat("5 s")
    assert beat("5 s") == first
    with transaction("owner") as connection:
        connection.execute("UPDATE pulses SET beat_at = beat_at - interval '6 s'")
    again = beat("5 s")
    assert again > first and beat("5 s") == again


def test_five_hundred_leases_among_five_thousand_are_judged_fast(
    settings: Settings, capsys: pytest.CaptureFixture[str], figure: Figure
) -> None:
    _rows(settings, 50, 100, 10)
    took: dict[str, float] = {}
    with transaction("owner") as connection:
        connection.execute("INSERT INTO pulses VALUES ('broker/jarvis', now(), now()), ('relay/local', now(), now())")
        connection.execute(f"UPDATE leases SET heartbeat_at = {PAST}, expires_at = {PAST} WHERE ended_at IS NULL")  # the dearest case
    with transaction("owner") as connection:
        connection.execute("ANALYZE")
    with transaction("warden") as connection:
        for name, call in (("what_is_over", "* FROM what_is_over('local', '0 s', '60 s')"), ("next_due_s", "next_due_s('local', '0 s', '60 s')"),
                           ("standing", "standing(l, '30 s', '60 s', '30 s') FROM leases l WHERE ended_at IS NULL")):  # fmt: skip
            times = []
            for _ in range(7):
                begun = time.perf_counter()
                rows = connection.execute(f"SELECT {call}").fetchall()  # type: ignore[call-overload]
                times.append(time.perf_counter() - begun)
            took[name] = sorted(times)[3]
            assert len(rows) == (1 if name == "next_due_s" else 500)
    with capsys.disabled():
        print("\n  500 live leases of 5,000, all late: " + ", ".join(f"{name} {s * 1000:.1f} ms" for name, s in took.items()))
    figure("500 live leases of 5,000 are judged in, s", max(took.values()), 0.2)
