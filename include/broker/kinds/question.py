"""question: a decision beyond the worker's scope; the agent's planner model answers it in one call, on the same lease."""

from __future__ import annotations

from typing import NamedTuple

from include.broker import questions
from include.broker.calls import perform
from include.broker.effects import Effects, Heard
from include.broker.models import Call, Pending, Reply
from include.broker.process import Process
from include.database.unit_of_work import AsyncConnection
from include.errors import AirlockError
from include.messages.models import Question


def gather(effects: Effects, message: Heard) -> None:
    """Keep the question until it is answered; one that blocks stops the worker."""
    effects.asked = True
    asked = Question.model_validate(message.clean(message.envelope.payload.model_dump()))
    effects.questions.append((message.envelope.id, message.attempt, asked))
    if asked.urgency == "blocking":
        effects.blocked.append(message.attempt)


class _Asking(NamedTuple):
    """A worker that waits for an answer."""

    call: Call
    pending: Pending

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        """Send the model's answer to the worker."""
        await questions.keep(connection, self.call.agent, self.pending, questions.read(reply.text), self.call.model)

    async def fail(self, connection: AsyncConnection, kind: str, message: str) -> None:
        """Tell the worker that there is no answer."""
        await questions.keep_no_answer(connection, self.call.agent, self.pending, f"{kind}: {message}")


async def answer(process: Process, pending: Pending) -> None:
    """Call the planner model for an answer."""

    async def prepare(connection: AsyncConnection) -> Call | None:
        try:
            return await questions.call(connection, await process.models(connection), pending)
        except AirlockError as error:
            await questions.keep_no_answer(connection, process.agent, pending, str(error))
            return None

    if call := await process.transact(prepare):
        await perform(process, call, _Asking(call, pending))


async def lose(connection: AsyncConnection, agent: str, pending: Pending, story: str) -> None:
    """Tell the worker that a broker died over the call."""
    await questions.keep_no_answer(connection, agent, pending, story)
