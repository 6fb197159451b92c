"""Make one model call: count, reserve, say that it leaves, call, settle with its effect in the same transaction."""

from __future__ import annotations

from typing import Protocol

from include import faults
from include.broker import money, rules
from include.broker.anthropic import Outcome
from include.broker.models import Call, Reply, Reserved
from include.broker.process import Process, log
from include.database.unit_of_work import AsyncConnection
from include.errors import BudgetExceeded, ModelFailed, StaleEpoch


class AnswerKeeper(Protocol):
    """Who asked for a model call, and what becomes of its answer. Each method writes in the transaction that ends the call."""

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        """Keep the model's reply."""

    async def fail(self, connection: AsyncConnection, kind: str, message: str) -> None:
        """Keep why there is none: a kind as in ``model_requests.error_kind``, and words for people."""


async def perform(process: Process, call: Call, asker: AnswerKeeper) -> None:
    """Make a call and keep its answer, or keep why there is none. Whatever goes wrong, the call ends and who asked is told.

    Args:
        process: this broker.
        call: what to call; made at most once for its ``request``, by whichever replica reserves it.
        asker: what to do with the end.
    """
    owner, reserved = process.owner, None
    try:
        tokens = rules.worst_input_tokens(call.body, await process.endpoint.count(call.body))
        reserved = await process.transact(lambda c: _reserve(c, process, call, tokens, asker))
        if reserved is not None:  # else another replica makes this call, or it was answered without one
            await _carry_out(process, reserved, owner, asker)
    except StaleEpoch:
        return  # revoked meanwhile: its worker is told by task.cancel
    except Exception as error:  # what the endpoint said, or the database, was not foreseen: neither money nor attempt may hang on it
        log.exception("the model call %s of %s goes wrong", call.address, call.model)
        await _close(process, reserved, owner, asker, error)


async def _carry_out(process: Process, reserved: Reserved, owner: str, asker: AnswerKeeper) -> None:
    faults.point("broker.reserve.after-commit")
    if not await process.transact(lambda c: money.mark_sent(c, reserved, owner)):
        await process.transact(lambda c: money.release(c, reserved, owner, 0, "revoked before it was sent"))
        return
    faults.point("broker.request.before")
    outcome = await process.endpoint.create(reserved.call.body)
    faults.point("broker.request.after")
    await process.transact(lambda c: _end(c, process, reserved, owner, outcome, asker))
    faults.point("broker.settle.after-commit")


async def _close(process: Process, reserved: Reserved | None, owner: str, asker: AnswerKeeper, error: Exception) -> None:
    """Give a call up at its worst case, in a transaction that the error has not broken, and say so; the money ends also if that fails."""
    words = f"The broker could not use what came of this call ({type(error).__name__}; its log says more)."
    if reserved is not None:
        words += " It is booked at its worst case and not repeated."

    async def end(connection: AsyncConnection, told: bool) -> None:
        if reserved is not None and not await money.give_up(connection, reserved, owner, 1, words):
            return
        if told:
            await asker.fail(connection, "malformed", words)

    try:
        await process.transact(lambda c: end(c, True))
    except Exception:
        log.exception("nobody could be told that this call was given up")
        await process.transact(lambda c: end(c, False))


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
