"""llm.request: the worker asks for the model's next turn."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from include.broker import conversation
from include.broker.calls import perform
from include.broker.effects import Effects, Heard
from include.broker.models import Call, Pending, Reply
from include.broker.process import Process
from include.database.unit_of_work import AsyncConnection
from include.errors import AirlockError, ModelFailed
from include.messages.models import LlmError


def gather(effects: Effects, message: Heard) -> None:
    """Take the tools' results into the transcript; what does not fit it is answered at once, the rest by the model."""
    effects.asked = True
    effects.later.append(partial(_take, effects, message))


async def _take(effects: Effects, message: Heard, connection: AsyncConnection) -> None:
    error = await conversation.add_request(connection, message.attempt, message.envelope.id, message.envelope.payload)
    if error is not None:
        effects.answer(message, conversation.no_turn(error))


class _Turn(NamedTuple):
    """A worker that waits for its turn."""

    call: Call
    pending: Pending

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        """Write the turn into the transcript and send it to the worker."""
        await conversation.keep_reply(connection, self.call, self.pending, reply)

    async def fail(self, connection: AsyncConnection, kind: str, message: str) -> None:
        """Tell the worker why it gets no turn."""
        told = LlmError(kind="budget", message=message) if kind == "budget" else conversation.why(ModelFailed(kind, message))
        await conversation.refuse(connection, self.call.agent, self.pending, told)


async def answer(process: Process, pending: Pending) -> None:
    """Call the model for the attempt's next turn."""

    async def prepare(connection: AsyncConnection) -> Call | None:
        models = await process.models(connection)
        try:
            return await conversation.turn_call(connection, models, pending)
        except AirlockError as error:
            await conversation.refuse(connection, process.agent, pending, LlmError(kind="model", message=str(error)))
            return None

    if call := await process.transact(prepare):
        await perform(process, call, _Turn(call, pending))


async def lose(connection: AsyncConnection, agent: str, pending: Pending, story: str) -> None:
    """Tell the worker that a broker died over the call, and that it may ask again."""
    await conversation.refuse(connection, agent, pending, LlmError(kind="lost", message=story + " Ask again."))
