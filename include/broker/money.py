"""Reserve, then spend: the worst case of a call is debited before it leaves, and settled from the real usage."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg

from include.broker import prices, rules
from include.broker.models import Call, Held, Reserved, Usage
from include.clock import new_id
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.errors import BudgetExceeded, StaleEpoch
from include.frozen import Frozen
from include.goals import spending
from include.governance import notices
from include.governance.models import Notice
from include.leases import metering
from include.leases.metering import Bill
from include.tasks import batches

_SQL = queries.load(__file__)


class _GoalMoney(Frozen):
    """A goal run's budget, and what is spent or held back of it."""

    most: int
    taken: int


class _LeaseMoney(Frozen):
    """A lease's bounds, and what is spent or held back of them."""

    max_micro: int
    taken_micro: int
    max_tokens: int
    tokens_used: int


class _AgentMoney(Frozen):
    """An agent's budgets, and what is spent or held back of them."""

    day_budget_micro: int
    month_budget_micro: int
    day: int
    month: int


class _End(Frozen):
    """How a call ends: its state, what it costs, the tokens that count, and what is noted of it."""

    state: str
    cost: int = 0
    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    attempts: int
    error: str | None


class _Ended(Frozen):
    """Whose call has ended, and what was held back for it."""

    agent: str
    goal_run: str
    task_run: str | None
    lease: UUID | None
    micro: int


class _Spent(Frozen):
    """A budget, and what is spent of it, without what is only held back."""

    key: str
    what: str
    spent: int
    most: int


async def reserve(connection: AsyncConnection, call: Call, input_tokens: int, owner: str, offline: bool) -> Reserved | None:
    """Debit the worst case of a call from everything that bounds it, in the open transaction.

    Args:
        connection: the open transaction.
        call: what is to be called.
        input_tokens: the most that its input can be.
        owner: this process.
        offline: True: the offline model answers (price 0; tokens count).

    Returns:
        The reservation; None if a call was made for this request before, or it was answered without one.

    Raises:
        BudgetExceeded: it does not fit; ``limit`` names lease tokens, lease, goal run, agent's day or agent's month.
        StaleEpoch: the lease is revoked or over.
        ModelFailed: nobody knows the model's price.
    """
    price = prices.prices(call.model, offline)
    micro, tokens = rules.worst_micro(price, input_tokens, call.max_tokens), input_tokens + call.max_tokens
    names = call.model_dump(exclude={"body", "max_tokens"})
    await connection.execute(_SQL.lock_budget, names)
    if await rows.ascalar(connection, _SQL.is_taken_up, **names):
        return None  # asked first: another replica's call for the same request must not look like a budget that is used up
    async with connection.transaction():  # what does not fit leaves no lock behind but the agent's
        rules.must_fit(await _limits(connection, call), micro, tokens)
        held = Reserved(id=new_id(), micro=micro, input_tokens=input_tokens, output_tokens=call.max_tokens, call=call)
        names |= held.model_dump(exclude={"call"}) | {"owner": owner, "offline": offline, "price_table": price.table}
        try:
            await connection.execute(_SQL.insert_call, names)
            await spending.hold(connection, call.goal_run, micro)
            await metering.hold(connection, call.lease, micro)
        except psycopg.errors.CheckViolation as error:  # cannot be: the rows are locked and were looked at
            raise BudgetExceeded("database", "The database refuses to reserve more than a limit.") from error
    return held


async def _limits(connection: AsyncConnection, call: Call) -> list[rules.Limit]:
    """Read and lock all limits of a call, behind the agent's lock and in this order: nobody waits in a circle."""
    limits = []
    run = await rows.aone(connection, _GoalMoney, _SQL.lock_goal_run, goal_run=call.goal_run)
    if call.lease is not None:
        lease = await rows.amaybe(connection, _LeaseMoney, _SQL.lock_lease, lease=call.lease)
        if lease is None:
            raise StaleEpoch(f"The lease of {call.task_run}/{call.epoch} is revoked or over; no model is called for it.")
        under_way = await rows.ascalar(connection, _SQL.tokens_under_way, lease=call.lease)
        limits.append(rules.Limit("the lease's tokens", lease.max_tokens, lease.tokens_used + under_way, "tokens"))
        limits.append(rules.Limit("the lease's money", lease.max_micro, lease.taken_micro, "micro"))
    agent = await rows.aone(connection, _AgentMoney, _SQL.agent_taken, agent=call.agent)
    limits.append(rules.Limit("the goal run's budget", run.most, run.taken, "micro"))
    limits.append(rules.Limit(f"agent {call.agent}'s day", agent.day_budget_micro, agent.day, "micro"))
    limits.append(rules.Limit(f"agent {call.agent}'s month", agent.month_budget_micro, agent.month, "micro"))
    return limits


async def mark_sent(connection: AsyncConnection, held: Held, owner: str) -> bool:
    """Say, before the request leaves, that it leaves; False: it must not (revoked, or no longer ours)."""
    return await rows.ascalar(connection, _SQL.mark_call_sent, id=held.id, owner=owner) is not None


async def settle(connection: AsyncConnection, reserved: Reserved, owner: str, usage: Usage, attempts: int, offline: bool) -> bool:
    """Settle a call from its real usage; False if another process ended it (its answer must then be dropped)."""
    call = reserved.call
    cost = rules.cost_micro(prices.prices(call.model, offline), usage)
    excess = max(0, cost - reserved.micro)
    # Cut at what was reserved: the worst case is built to be one, and the limits hold even where an endpoint's own count is wrong.
    end = _End(
        state="settled",
        cost=cost - excess,
        input=usage.prompt,
        output=usage.output_tokens,
        cache_read=usage.cache_read,
        cache_write=usage.cache_write,
        attempts=attempts,
        error=f"cost {cost} micro-USD, more than the worst case {reserved.micro}" if excess else None,
    )
    if not await _end(connection, reserved.id, owner, end):
        return False
    if excess:
        await metering.exceed(connection, call.lease, excess)
        words = rules.excess_words(call.model, call.address, cost, reserved.micro)
        await _warn(connection, f"excess:{reserved.id}", call.goal_run, call.task_run, words)
    return True


async def release(connection: AsyncConnection, held: Held, owner: str, attempts: int, why: str) -> bool:
    """Give a reservation back: the endpoint did no work for it."""
    return await _end(connection, held.id, owner, _End(state="released", attempts=attempts, error=why))


async def give_up(connection: AsyncConnection, held: Held, owner: str, attempts: int, why: str) -> bool:
    """Settle a call whose end nobody knows at its worst case; it is never sent again."""
    worst = {"cost": held.micro, "input": held.input_tokens, "output": held.output_tokens}
    return await _end(connection, held.id, owner, _End(state="unknown", attempts=attempts, error=why, **worst))


async def _end(connection: AsyncConnection, id_: UUID, owner: str, end: _End) -> bool:
    over = await rows.amaybe(connection, _Ended, _SQL.end_call, id=id_, owner=owner, **end.model_dump())
    if over is None:
        return False
    await spending.settle(connection, over.goal_run, over.micro, end.cost)
    await batches.spend(connection, over.task_run, end.cost)
    await metering.settle(connection, over.lease, Bill(over.micro, end.cost, end.input + end.output))
    if end.cost:
        await _warn_of_budgets(connection, over)
    return True


async def _warn_of_budgets(connection: AsyncConnection, over: _Ended) -> None:
    """Tell, once each, which budgets are four fifths spent now."""
    names: dict[str, Any] = over.model_dump(include={"lease", "goal_run", "agent"})
    for budget in await rows.aevery(connection, _Spent, _SQL.spent, **names):
        if words := rules.warning(budget.what, budget.spent, budget.most):
            await _warn(connection, f"spend80:{budget.key}", over.goal_run, over.task_run, words)


async def _warn(connection: AsyncConnection, key: str, goal_run: str, task_run: str | None, words: str) -> None:
    await notices.atell(connection, Notice(key=key, kind="warning", goal_run=goal_run, task_run=task_run, words=words))
