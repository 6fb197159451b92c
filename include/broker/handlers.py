"""What each kind of message from a worker means, by its type: one handler a kind (``include.broker.kinds``)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from include.broker.effects import Effects, Heard
from include.broker.kinds import artifact, ending, heartbeat, llm_request, permission, progress, question
from include.broker.models import Pending
from include.broker.process import Process
from include.database.unit_of_work import AsyncConnection


class Handler(NamedTuple):
    """What the broker does with one kind of message.

    ``gather``: add what it changes to the batch. ``replies``: the worker waits for an answer, which goes out once more if it asks again.
    ``answer``: make the model call that it asks for. ``lose``: tell the worker that a broker died over that call.
    """

    gather: Callable[[Effects, Heard], None]
    replies: bool = True
    answer: Callable[[Process, Pending], Awaitable[None]] | None = None
    lose: Callable[[AsyncConnection, str, Pending, str], Awaitable[None]] | None = None


KINDS = {
    "heartbeat": Handler(heartbeat.gather, replies=False),
    "progress": Handler(progress.gather, replies=False),
    "llm.request": Handler(llm_request.gather, answer=llm_request.answer, lose=llm_request.lose),
    "question": Handler(question.gather, answer=question.answer, lose=question.lose),
    "permission.request": Handler(permission.gather),
    "artifact": Handler(artifact.gather),
    "task.complete": Handler(ending.gather_complete),
    "task.failed": Handler(ending.gather_failed),
}
ASKING = [type_ for type_, handler in KINDS.items() if handler.answer]
"""Types that a model answers."""


async def answer(process: Process, pending: Pending) -> None:
    """Answer a message by a model call."""
    handler = KINDS[pending.type]
    assert handler.answer is not None, pending.type
    await handler.answer(process, pending)


async def lose(connection: AsyncConnection, agent: str, pending: Pending, story: str) -> None:
    """Tell the worker that asked that a broker died over the call."""
    handler = KINDS[pending.type]
    assert handler.lose is not None, pending.type
    await handler.lose(connection, agent, pending, story)
