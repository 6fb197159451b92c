"""Make one model call: count, reserve, say that it leaves, call, settle with its effect in the same transaction."""

from __future__ import annotations

from typing import Protocol

from include import faults
from include.broker import money, rules
from include.broker.anthropic import Outcome
from include.broker.models import Call, Reply, Reserved
from include.broker.process import Process
from include.database.unit_of_work import AsyncConnection
from include.errors import BudgetExceeded, ModelFailed, StaleEpoch


class AnswerKeeper(Protocol):
    """Who asked for a model call, and what becomes of its answer. Each method writes in the transaction that ends the call."""

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        """Keep the model's reply."""

    async def fail(self, connection: AsyncConnection, kind: str, message: str) -> None:
        """Keep why there is none: a kind as in ``model_requests.error_kind``, and words for people."""


async def perform(process: Process, call: Call, asker: AnswerKeeper) -> None:
    """Make a call and keep its answer, or keep why there is none.

    Args:
        process: this broker.
        call: what to call; made at most once for its ``request``, by whichever replica reserves it.
        asker: what to do with the end.
    """
    owner = process.owner
    tokens = rules.worst_input_tokens(call.body, await process.endpoint.count(call.body))
    try:
        reserved = await process.transact(lambda c: _reserve(c, process, call, tokens, asker))
    except StaleEpoch:
        return  # revoked meanwhile: its worker is told by task.cancel
    if reserved is None:
        return  # another replica makes this call, or it was answered without one
    faults.point("broker.reserve.after-commit")
    if not await process.transact(lambda c: money.mark_sent(c, reserved, owner)):
        await process.transact(lambda c: money.release(c, reserved, owner, 0, "revoked before it was sent"))
        return
    faults.point("broker.request.before")
    outcome = await process.endpoint.create(call.body)
    faults.point("broker.request.after")
    await process.transact(lambda c: _end(c, process, reserved, owner, outcome, asker))
    faults.point("broker.settle.after-commit")


async def _reserve(connection: AsyncConnection, process: Process, call: Call, tokens: int, asker: AnswerKeeper) -> Reserved | None:
    """Reserve for the call, or keep why it cannot be made.

    Both in one transaction, behind the agent's lock: of two replicas that take up one request, the second one finds what the first decided.
    """
    try:
        return await money.reserve(connection, call, tokens, process.owner, process.settings.offline)
    except BudgetExceeded as error:
        await asker.fail(connection, "budget", str(error))
    except ModelFailed as error:
        await asker.fail(connection, error.kind, str(error))
    return None


async def _end(
    connection: AsyncConnection, process: Process, reserved: Reserved, owner: str, outcome: Outcome, asker: AnswerKeeper
) -> None:
    """Settle the call and keep its effect; nothing, if another process took us for dead and ended it."""
    if outcome.reply is not None:
        if await money.settle(connection, reserved, owner, outcome.reply.usage, outcome.attempts, process.settings.offline):
            await asker.keep(connection, outcome.reply)
            faults.point("broker.settle.before-commit")
        return
    failure = outcome.failure or ModelFailed("down", "no answer")
    end = money.give_up if outcome.maybe_billed else money.release
    if await end(connection, reserved, owner, outcome.attempts, str(failure)):
        await asker.fail(connection, failure.kind, str(failure))
