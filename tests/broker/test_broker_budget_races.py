"""Budgets under crashes: processes that spend at once are killed in the middle; nothing is overspent, and after recovery nothing is open."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.agents import requests as model_requests
from include.broker import money, recovery, requests
from include.broker.models import Call, Usage
from include.broker.process import Process
from include.clock import new_id
from include.errors import BudgetExceeded
from tests.broker.test_broker_faults import PRICED, _settings
from tests.broker.test_broker_money import INPUT, LIMITS, MAX_TOKENS, _call
from tests.conftest import wait_until
from tests.kit.scale import patience

SUMS = """
SELECT count(*) AS calls, count(*) FILTER (WHERE state IN ('reserved', 'sent')) AS open, count(*) FILTER (WHERE state = 'unknown') AS unknown,
  COALESCE(sum(cost_micro), 0)::bigint AS spent, COALESCE(sum(input_tokens + output_tokens), 0)::bigint AS tokens FROM model_calls
"""


def _run(yard, work: Any) -> Any:  # type: ignore[no-untyped-def]
    async def go() -> Any:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            return await work(connection)

    return asyncio.run(go())


def _balanced(yard) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """No reservation is open, and lease, goal run, task run and calls say the same."""
    sums = yard.rows(SUMS)[0]
    goal = yard.rows("SELECT sum(reserved_micro)::bigint AS reserved, sum(spent_micro)::bigint AS spent FROM goal_runs")[0]
    assert sums["open"] == 0 and goal == {"reserved": 0, "spent": sums["spent"]}
    return sums  # type: ignore[no-any-return]


@pytest.mark.parametrize("limit", LIMITS)
def test_four_processes_two_of_them_killed_never_overspend(yard, limit: str, capsys) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt(yard.goal_run(budget_micro=10**10), max_micro=10**9, max_tokens=10**7)
    yard.rows(LIMITS[limit])
    spenders = [yard.start("-m", "tests.broker.spender", f"jarvis/{n}", "4", str(worker.lease)) for n in range(4)]
    for spender in spenders[:2]:
        wait_until("it spends", lambda s=spender: "sent" in yard.log(s) or s.poll() is not None, 60)
        spender.send_signal(signal.SIGKILL)
    for spender in spenders:
        spender.wait(patience(120))
    before = yard.rows(SUMS)[0]
    ended = _run(yard, lambda c: recovery.recover(c, "jarvis", "jarvis/alive"))
    sums = _balanced(yard)
    most, used = (90_000, sums["tokens"]) if "tokens" in limit else (600_000, sums["spent"])
    assert used <= most and ended == before["open"]
    lease = yard.rows("SELECT reserved_micro, spent_micro, tokens_used FROM leases")[0]
    assert lease == {"reserved_micro": 0, "spent_micro": sums["spent"], "tokens_used": sums["tokens"]}
    assert yard.one("SELECT spent_micro FROM task_runs") == sums["spent"]
    with capsys.disabled():
        print(
            f"\n  {limit}: {sums['calls']} calls by 16 workers in 4 processes, 2 killed with {before['open']} calls open: used {used:,} of {most:,}, overspend 0"
        )


def test_two_brokers_one_of_them_killed_never_overspend_a_goal(yard, capsys) -> None:  # type: ignore[no-untyped-def]
    # Sixteen steps ask at once; the goal's budget, the agent's day and month are enough for some of them.
    yard.model({"plans": [{"text": "{}", "delay_s": 0.5}] * 40})
    _settings(yard)
    more = {**PRICED, "AIRLOCK_ANTHROPIC_BASE_URL": f"http://127.0.0.1:{yard.model_port}"}
    brokers = [yard.broker(**more), yard.broker(**more)]
    run = yard.goal_run(budget_micro=1_200_000)
    yard.rows("UPDATE agents SET day_budget_micro = 1200000, month_budget_micro = 1200000")
    for _n in range(16):
        yard.rows(
            "INSERT INTO model_requests (id, agent, goal_run, purpose, address, body)"
            " VALUES (%s, 'jarvis', %s, 'plan', %s, '{\"messages\": [{\"role\": \"user\", \"content\": \"Goal: x\"}], \"max_tokens\": 8000}')",
            new_id(), run, f"{run}/plan/1",
        )  # fmt: skip
    wait_until("a call is sent", lambda: yard.one("SELECT count(*) FROM model_calls WHERE state = 'sent'"), 60)
    brokers[0].send_signal(signal.SIGKILL)
    wait_until("all are answered", lambda: not yard.one("SELECT count(*) FROM model_requests WHERE state = 'requested'"), 120)
    sums = _balanced(yard)
    kinds = yard.rows("SELECT COALESCE(error_kind, 'done') AS kind, count(*) AS n FROM model_requests GROUP BY 1 ORDER BY 1")
    with capsys.disabled():
        print(f"\n  2 brokers, 1 killed: {[tuple(row.values()) for row in kinds]}, spent {sums['spent']:,} of 1,200,000, overspend 0")
    assert 0 < sums["spent"] <= 1_200_000


@pytest.mark.parametrize("asked", [True, False], ids=["as it is", "control: only calls are looked for"])
def test_a_request_that_one_replica_refused_is_paid_by_no_other(yard, monkeypatch: pytest.MonkeyPatch, asked: bool) -> None:  # type: ignore[no-untyped-def]
    """Two replicas read the same request; the first finds no room for it, the second would a moment later."""
    if not asked:
        monkeypatch.setattr(money._SQL, "is_taken_up", "SELECT EXISTS (SELECT FROM model_calls WHERE request = %(request)s)")
    yard.model({"plans": [{"text": "{}"}]})
    worker, settings = yard.attempt(), _settings(yard)
    run = worker.task_run.rpartition("-")[0]
    yard.rows("UPDATE agents SET day_budget_micro = 30000")
    yard.rows(
        "INSERT INTO model_requests (id, agent, goal_run, purpose, address, body)"
        " VALUES (%s, 'jarvis', %s, 'plan', %s, '{\"messages\": [{\"role\": \"user\", \"content\": \"Goal: x\"}], \"max_tokens\": 100}')",
        new_id(), run, f"{run}/plan/1",
    )  # fmt: skip
    locked: list[bool] = []
    end = model_requests.end

    async def watched(connection: Any, *how: Any) -> None:
        locked.append(not yard.one("SELECT pg_try_advisory_xact_lock(hashtextextended('budget jarvis', 0))"))
        await end(connection, *how)

    monkeypatch.setattr(model_requests, "end", watched)

    async def replicas() -> None:
        processes = [Process("jarvis", settings), Process("jarvis", settings)]
        for process in processes:
            await process.open()
        other = await processes[0].transact(lambda c: money.reserve(c, _call(worker), INPUT, "o", False))
        assert other is not None
        (request,) = await processes[0].transact(lambda c: model_requests.waiting(c, "jarvis", 0))
        await requests.answer(processes[0], request)
        await processes[0].transact(lambda c: money.release(c, other, "o", 0, "not sent"))
        await requests.answer(processes[1], request)
        for process in processes:
            await process.close()

    asyncio.run(replicas())
    assert yard.one("SELECT error_kind FROM model_requests") == "budget"
    assert locked[0]  # what the first decides is decided before the second may look
    assert (_balanced(yard)["spent"] > 0) == (not asked)


def test_control_check_then_spend_without_the_row_locks_overspends(yard, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt(yard.goal_run(budget_micro=10**10), max_micro=120_000, max_tokens=10**7)
    monkeypatch.setattr(money._SQL, "lock_budget", "SELECT pg_sleep(0.05)")
    monkeypatch.setattr(money._SQL, "lock_goal_run", money._SQL.lock_goal_run.replace("FOR NO KEY UPDATE", ""))
    monkeypatch.setattr(money._SQL, "lock_lease", money._SQL.lock_lease.replace("FOR NO KEY UPDATE", ""))
    yard.rows("ALTER TABLE leases DROP CONSTRAINT leases_check")  # the database's own bound, the second wall

    async def sixteen() -> None:
        async def one() -> None:
            async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
                await money.reserve(connection, _call(worker), INPUT, "o", False)

        await asyncio.gather(*(one() for _ in range(16)), return_exceptions=True)

    asyncio.run(sixteen())
    assert yard.one("SELECT reserved_micro FROM leases") > 120_000


# -- what is told ------------------------------------------------------------------------------------------------------------------


async def _spend(connection: Any, call: Call, usage: Usage) -> None:
    reserved = await money.reserve(connection, call, INPUT, "o", False)
    assert reserved is not None and await money.mark_sent(connection, reserved, "o")
    assert await money.settle(connection, reserved, "o", usage, 1, False)


def test_four_fifths_are_told_once_for_each_budget(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt(yard.goal_run(budget_micro=150_000), max_micro=100_000, max_tokens=10**7)
    yard.rows("UPDATE agents SET day_budget_micro = 200000, month_budget_micro = 250000")
    told = []
    for call in range(1, 11):  # each costs 20,000: 80,000 of the lease after the 4th, 120,000 of the goal after the 6th, and so on
        _run(yard, lambda c: _spend(c, _call(worker), Usage(input_tokens=INPUT, output_tokens=MAX_TOKENS)))
        told.append([row["key"].split(":")[1] for row in yard.rows("SELECT key FROM notices WHERE kind = 'warning' ORDER BY id")])
        if call == 4:
            yard.rows("UPDATE leases SET max_micro = 400000")  # told stays told
        if call == 6:
            yard.rows("UPDATE goal_runs SET budget_micro = 1000000")
        if call == 8:
            yard.rows("UPDATE agents SET day_budget_micro = 1000000")
    assert told[2] == [] and told[3] == told[4] == ["lease"] and told[5] == told[6] == ["lease", "goal"]
    assert told[7] == told[8] == ["lease", "goal", "day"] and told[9] == ["lease", "goal", "day", "month"]
    words = yard.one("SELECT words FROM notices WHERE key LIKE 'spend80:goal:%%'")
    assert words.startswith("$0.1200 of $0.1500 is spent of the budget of goal run g")


def test_a_cost_beyond_the_worst_case_breaks_the_lease_and_is_told(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt(max_micro=1_000_000)
    _run(yard, lambda c: _spend(c, _call(worker), Usage(input_tokens=INPUT, output_tokens=3 * MAX_TOKENS)))
    (lease,) = yard.rows("SELECT excess_micro, spent_micro, standing(l, '0 s', '60 s', '30 s') AS standing FROM leases l")
    assert lease == {"excess_micro": 10_000, "spent_micro": 30_000, "standing": "usd"}  # 10,000 + 30,000 real, 30,000 reserved
    (call,) = yard.rows("SELECT cost_micro, error FROM model_calls")
    assert call["cost_micro"] == 30_000 and "cost 40000 micro-USD, more than the worst case 30000" in call["error"]
    (notice,) = yard.rows("SELECT kind, words FROM notices WHERE key LIKE 'excess:%%'")
    assert notice["kind"] == "warning" and "prices.yaml" in notice["words"]
    _balanced(yard)
    other = yard.attempt(max_micro=1_000_000)
    _run(yard, lambda c: _spend(c, _call(other), Usage(input_tokens=INPUT, output_tokens=MAX_TOKENS)))
    assert yard.one("SELECT standing(l, '0 s', '60 s', '30 s') FROM leases l WHERE id = %s", other.lease) is None  # control


def test_spend_carries_over_rework_and_reruns(yard) -> None:  # type: ignore[no-untyped-def]
    # Defect D10 and its kin: a fresh attempt has a fresh lease, and a reopened goal run its old budget.
    run = yard.goal_run(budget_micro=50_000)
    first = yard.attempt(run, max_micro=50_000)
    _run(yard, lambda c: _spend(c, _call(first), Usage(input_tokens=0, output_tokens=MAX_TOKENS)))
    yard.rows("UPDATE leases SET revoked_at = now(), ended_at = now()")
    second = yard.attempt(run, epoch=2, max_micro=50_000)
    _run(yard, lambda c: _spend(c, _call(second), Usage(input_tokens=INPUT, output_tokens=MAX_TOKENS)))
    yard.rows("UPDATE goal_runs SET state = 'RUNNING'")
    yard.rows("UPDATE goal_runs SET state = 'FAILED', ended_at = now()")
    yard.rows("UPDATE goal_runs SET state = 'RUNNING', ended_at = NULL")  # a person clears a step: the same run is open again
    with pytest.raises(BudgetExceeded, match="goal run"):
        _run(yard, lambda c: money.reserve(c, _call(second), INPUT, "o", False))
    spent = _balanced(yard)["spent"]
    assert spent == yard.one("SELECT spent_micro FROM task_runs") == 30_000 > yard.one("SELECT max(spent_micro) FROM leases")
    yard.rows("UPDATE goal_runs SET budget_micro = 100000")
    assert _run(yard, lambda c: money.reserve(c, _call(second), INPUT, "o", False)) is not None  # control: it was the budget
