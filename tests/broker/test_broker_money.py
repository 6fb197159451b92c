"""Reserve, then spend: sixteen workers at once against each limit, overspend 0; without the lock, overspend shows."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from genai_prices import Usage as TableUsage
from genai_prices import calc_price
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from include.broker import money, prices, rules
from include.broker.models import Call, Usage
from include.clock import new_id
from include.errors import BudgetExceeded, ModelFailed, StaleEpoch

WORKERS = 16
MODEL = "claude-sonnet-5-5"
MAX_TOKENS = 1_000
INPUT = 5_000  # worst case: 5,000 × 4 + 1,000 × 10 = 30,000 micro-USD


def _call(worker) -> Call:  # type: ignore[no-untyped-def]
    return Call(request=str(new_id()), agent="jarvis", goal_run=worker.task_run.rsplit("-", 1)[0], task_run=worker.task_run, epoch=1,
                lease=worker.lease, purpose="work", model=MODEL, address="a", body={}, max_tokens=MAX_TOKENS)  # fmt: skip


async def _spend(dsn: str, worker: Any, seed: int, stopped_by: list[str]) -> None:
    """One worker: call after call until a limit says no."""
    rng = random.Random(seed)
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
        for _ in range(60):
            try:
                async with connection.transaction():
                    reserved = await money.reserve(connection, _call(worker), INPUT, "o", False)
                assert reserved is not None
            except BudgetExceeded as error:
                stopped_by.append(error.limit)
                return
            async with connection.transaction():
                assert await money.mark_sent(connection, reserved, "o")
            await asyncio.sleep(rng.random() / 200)
            async with connection.transaction():
                await _end(connection, reserved, rng)


async def _end(connection: Any, reserved: Any, rng: random.Random) -> None:
    usage = Usage(input_tokens=rng.randint(0, INPUT), output_tokens=rng.randint(0, MAX_TOKENS))
    how = rng.random()
    if how < 0.1:
        assert await money.release(connection, reserved, "o", 1, "refused")
    elif how < 0.2:
        assert await money.give_up(connection, reserved, "o", 1, "lost")
    else:
        assert await money.settle(connection, reserved, "o", usage, 1, False)


LIMITS = {
    "the lease's money": "UPDATE leases SET max_micro = 600000, max_tokens = 10000000",
    "the lease's tokens": "UPDATE leases SET max_tokens = 90000, max_micro = 900000000",
    "the goal run's budget": "UPDATE goal_runs SET budget_micro = 600000",
    "agent jarvis's day": "UPDATE agents SET day_budget_micro = 600000",
    "agent jarvis's month": "UPDATE agents SET month_budget_micro = 600000",
}


def _race(yard, workers: list[Any]) -> list[str]:  # type: ignore[no-untyped-def]
    stopped: list[str] = []

    async def race() -> None:
        dsn = yard.settings.dsn("broker")
        await asyncio.gather(*(_spend(dsn, workers[i % len(workers)], i, stopped) for i in range(WORKERS)))

    asyncio.run(race())
    return stopped


@pytest.mark.parametrize("limit", LIMITS)
def test_sixteen_at_once_never_overspend(yard, limit: str, capsys) -> None:  # type: ignore[no-untyped-def]
    run = yard.goal_run(budget_micro=10**10)
    worker = yard.attempt(run, max_micro=10**9, max_tokens=10**7)
    yard.rows(LIMITS[limit])
    stopped = _race(yard, [worker])
    calls = yard.rows(
        "SELECT count(*) AS n, sum(cost_micro)::bigint AS spent, sum(input_tokens + output_tokens)::bigint AS tokens FROM model_calls"
    )[0]
    lease, goal = yard.rows("SELECT * FROM leases")[0], yard.rows("SELECT * FROM goal_runs")[0]
    used = calls["tokens"] if "tokens" in limit else calls["spent"]
    most = 90_000 if "tokens" in limit else 600_000
    with capsys.disabled():
        print(f"\n  {limit}: {calls['n']} calls by {WORKERS} workers, used {used:,} of {most:,}, overspend {max(0, used - most)}")
    assert stopped == [limit] * WORKERS and used <= most
    assert lease["reserved_micro"] == goal["reserved_micro"] == 0
    assert lease["spent_micro"] == goal["spent_micro"] == yard.one("SELECT spent_micro FROM task_runs") == calls["spent"]
    assert lease["tokens_used"] == calls["tokens"]


def test_control_without_the_lock_a_day_is_overspent(yard, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    # One goal run a worker, so that no row's lock stands in for the one that is removed.
    plans = [yard.attempt(yard.goal_run(budget_micro=10**10), max_micro=10**9, max_tokens=10**7) for _ in range(WORKERS)]
    yard.rows("UPDATE agents SET day_budget_micro = 120000")
    monkeypatch.setattr(money._SQL, "lock_budget", "SELECT pg_sleep(0.02)")
    _race(yard, plans)
    assert yard.one("SELECT sum(cost_micro)::bigint FROM model_calls") > 120_000


def test_reserving_twice_for_one_request_reserves_once(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    call = _call(worker)

    async def twice() -> tuple[Any, Any, bool]:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            first = await money.reserve(connection, call, INPUT, "o", False)
            again = await money.reserve(connection, call, INPUT, "o", False)
            assert first is not None
            return first, again, await money.mark_sent(connection, first, "another owner")

    first, again, foreign = asyncio.run(twice())
    assert (first.micro, again, foreign) == (30_000, None, False)
    assert yard.one("SELECT reserved_micro FROM leases") == 30_000


def test_a_revoked_lease_spends_nothing(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    yard.rows("UPDATE leases SET revoked_at = clock_timestamp()")

    async def reserve() -> None:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            await money.reserve(connection, _call(worker), INPUT, "o", False)

    with pytest.raises(StaleEpoch):
        asyncio.run(reserve())


def test_no_money_of_yesterday_counts_today(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    yard.rows("UPDATE agents SET day_budget_micro = 30000")

    async def reserve() -> Any:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            return await money.reserve(connection, _call(worker), INPUT, "o", False)

    assert asyncio.run(reserve()) is not None
    with pytest.raises(BudgetExceeded, match="day"):
        asyncio.run(reserve())
    yard.rows("UPDATE model_calls SET reserved_at = date_trunc('day', now(), 'UTC') - interval '1 second'")
    assert asyncio.run(reserve()) is not None or datetime.now(UTC).day == 1


MODELS = ["claude-opus-5-5", "claude-haiku-5-5", "claude-opus-5", "claude-fable-5-2", "claude-haiku-4-5"]
counts = st.integers(min_value=0, max_value=300_000)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MODELS), counts, counts, counts, st.integers(min_value=0, max_value=128_000))
def test_cost_is_the_tables_and_never_above_the_worst_case(model: str, fresh: int, read: int, write: int, output: int) -> None:
    usage = Usage(input_tokens=fresh, output_tokens=output, cache_read_input_tokens=read, cache_creation_input_tokens=write)
    cost = rules.cost_micro(prices.prices(model), usage)
    table = calc_price(
        TableUsage(input_tokens=usage.prompt, output_tokens=output, cache_read_tokens=read, cache_write_tokens=write),
        model_ref=model, provider_id="anthropic",
    ).total_price * Decimal(1_000_000)  # fmt: skip
    assert 0 <= cost - table < 1
    assert cost <= rules.worst_micro(prices.prices(model), usage.prompt, output)


def test_unknown_models_are_refused_and_the_offline_one_is_free() -> None:
    """D16: the seed kept three prices in its code, which grow stale, and knew no answer for a model that is not among them."""
    with pytest.raises(ModelFailed, match=r"prices\.yaml"):
        prices.prices("no-such-model")
    assert rules.worst_micro(prices.prices("no-such-model", offline=True), 10**6, 10**6) == 0
    assert prices.prices(MODEL).tiers[0].cache_read == Decimal("0.2")


def test_bytes_bound_tokens_where_the_endpoint_does_not_count() -> None:
    assert rules.worst_input_tokens({"x": "ä" * 100}, None) >= 200
    assert rules.worst_input_tokens({}, 1_000) == 1_064 and rules.worst_input_tokens({}, 100_000) == 102_000
