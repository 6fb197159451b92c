"""Reserve, then spend: the worst case of a call is debited before it leaves, and settled from the real usage."""

from __future__ import annotations

from typing import Any

import psycopg

from include.broker import prices, rules
from include.broker.models import Call, Reserved, Usage
from include.clock import new_id
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.errors import BudgetExceeded, StaleEpoch

_SQL = queries.load(__file__)


async def reserve(connection: AsyncConnection, call: Call, input_tokens: int, owner: str, offline: bool) -> Reserved | None:
    """Debit the worst case of a call from everything that bounds it, in the open transaction.

    Args:
        connection: the open transaction.
        call: what is to be called.
        input_tokens: the most that its input can be.
        owner: this process.
        offline: True: the offline model answers (price 0; tokens count).

    Returns:
        The reservation; None if a call was made for this request before.

    Raises:
        BudgetExceeded: it does not fit; ``limit`` names lease tokens, lease, goal run, agent's day or agent's month.
        StaleEpoch: the lease is revoked or over.
        ModelFailed: nobody knows the model's price.
    """
    price = prices.prices(call.model, offline)
    micro, tokens = rules.worst_micro(price, input_tokens, call.max_tokens), input_tokens + call.max_tokens
    names = call.model_dump(exclude={"body", "max_tokens"})
    await connection.execute(_SQL.lock_budget, names)
    if await (await connection.execute(_SQL.call_for, names)).fetchone() is not None:
        return None  # asked first: another replica's call for the same request must not look like a budget that is used up
    rules.must_fit(await _limits(connection, call, names), micro, tokens)
    names |= {"id": new_id(), "owner": owner, "offline": offline, "micro": micro, "price_table": price.table}
    names |= {"input_tokens": input_tokens, "output_tokens": call.max_tokens}
    try:
        await connection.execute(_SQL.insert_call, names)
        await connection.execute(_SQL.debit_goal_run, names)
        await connection.execute(_SQL.debit_lease, names)
    except psycopg.errors.CheckViolation as error:  # cannot be: the rows are locked and were looked at
        raise BudgetExceeded("database", "The database refuses to reserve more than a limit.") from error
    return Reserved(id=names["id"], call=call, micro=micro, tokens=tokens)


async def _limits(connection: AsyncConnection, call: Call, names: dict[str, Any]) -> list[rules.Limit]:
    """All limits of a call, each locked until the transaction ends; behind the agent's lock and in this order: nobody waits in a circle."""
    limits = []
    run = await _one(connection, _SQL.lock_goal_run, names)
    if call.lease is not None:
        lease = await (await connection.execute(_SQL.lock_lease, names)).fetchone()
        if lease is None:
            raise StaleEpoch(f"The lease of {call.task_run}/{call.epoch} is revoked or over; no model is called for it.")
        under_way = (await _one(connection, _SQL.tokens_under_way, names))["tokens"]
        limits.append(rules.Limit("the lease's tokens", lease["max_tokens"], lease["tokens_used"] + under_way, "tokens"))
        limits.append(rules.Limit("the lease's money", lease["max_micro"], lease["taken_micro"], "micro"))
    agent = await _one(connection, _SQL.agent_taken, names)
    limits.append(rules.Limit("the goal run's budget", run["budget_micro"], run["taken"], "micro"))
    limits.append(rules.Limit(f"agent {call.agent}'s day", agent["day_budget_micro"], agent["day"], "micro"))
    limits.append(rules.Limit(f"agent {call.agent}'s month", agent["month_budget_micro"], agent["month"], "micro"))
    return limits


async def mark_sent(connection: AsyncConnection, reserved: Reserved, owner: str) -> bool:
    """Say, before the request leaves, that it leaves; False: it must not (revoked, or no longer ours)."""
    return await (await connection.execute(_SQL.mark_call_sent, {"id": reserved.id, "owner": owner})).fetchone() is not None


async def settle(connection: AsyncConnection, reserved: Reserved, owner: str, usage: Usage, attempts: int, offline: bool) -> bool:
    """Settle a call from its real usage; False if another process ended it (its answer must then be dropped)."""
    cost = rules.cost_micro(prices.prices(reserved.call.model, offline), usage)
    counted = {"input": usage.prompt, "output": usage.output_tokens, "cache_read": usage.cache_read, "cache_write": usage.cache_write}
    excess = max(0, cost - reserved.micro)
    note = f"cost {cost} micro-USD, more than the worst case {reserved.micro}" if excess else None
    # Cut at what was reserved: the worst case is built to be one, and the limits hold even where an endpoint's own count is wrong.
    if not await _end(connection, reserved.id, owner, "settled", cost - excess, counted, attempts, note):
        return False
    if excess:
        call = reserved.call
        await connection.execute(_SQL.add_excess, {"lease": call.lease, "excess": excess})
        told = {"key": f"excess:{reserved.id}", "goal_run": call.goal_run, "task_run": call.task_run}
        await connection.execute(_SQL.warn, told | {"words": rules.excess_words(call.model, call.address, cost, reserved.micro)})
    return True


async def release(connection: AsyncConnection, reserved: Reserved, owner: str, attempts: int, why: str) -> bool:
    """Give a reservation back: the endpoint did no work for it."""
    return await _end(connection, reserved.id, owner, "released", 0, {}, attempts, why)


async def give_up(connection: AsyncConnection, id_: Any, owner: str, worst: int, tokens: tuple[int, int], attempts: int, why: str) -> bool:
    """Settle a call whose end nobody knows at its worst case; it is never sent again."""
    return await _end(connection, id_, owner, "unknown", worst, {"input": tokens[0], "output": tokens[1]}, attempts, why)


async def _end(
    connection: AsyncConnection, id_: Any, owner: str, state: str, cost: int, counted: dict[str, int], attempts: int, error: str | None
) -> bool:
    names: dict[str, Any] = {"input": 0, "output": 0, "cache_read": 0, "cache_write": 0} | counted
    names |= {"id": id_, "owner": owner, "state": state, "cost": cost, "attempts": attempts, "error": error}
    row = await (await connection.execute(_SQL.end_call, names)).fetchone()
    if row is None:
        return False
    names |= {
        "micro": row["reserved_micro"],
        "tokens": names["input"] + names["output"],
        **{k: row[k] for k in ("agent", "goal_run", "task_run", "lease")},
    }
    await connection.execute(_SQL.settle_goal_run, names)
    await connection.execute(_SQL.settle_task_run, names)
    await connection.execute(_SQL.settle_lease, names)
    if cost:
        await _warn(connection, names)
    return True


async def _warn(connection: AsyncConnection, names: dict[str, Any]) -> None:
    """Tell, once each, which budgets are four fifths spent now."""
    for row in await (await connection.execute(_SQL.spent, names)).fetchall():
        if words := rules.warning(row["what"], row["spent"], row["most"]):
            await connection.execute(_SQL.warn, names | {"key": f"spend80:{row['key']}", "words": words})


async def _one(connection: AsyncConnection, sql: str, names: dict[str, Any]) -> dict[str, Any]:
    row = await (await connection.execute(sql, names)).fetchone()
    if row is None:
        raise LookupError(f"no row for {names}")
    return row
