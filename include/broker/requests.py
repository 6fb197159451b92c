"""Model requests of Airflow's steps: the call that each asks for, and how its answer is kept."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from include.agents import requests
from include.agents.models import End, ModelRequest, Prompt
from include.broker import conversation
from include.broker.calls import perform
from include.broker.models import AgentModels, Call, Reply
from include.broker.process import Process
from include.database.unit_of_work import AsyncConnection
from include.frozen import problems


class _Step(NamedTuple):
    """A step of Airflow that waits for an answer."""

    request: UUID

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        """Keep the model's text for the step."""
        if reply.stop_reason == "refusal":
            return await self.fail(connection, "refusal", "The model refuses to answer this. Word the goal differently.")
        if not reply.text:
            said = f"The model gave no text (stop reason {reply.stop_reason}). Run this step again."
            return await self.fail(connection, "malformed", said)
        return await requests.end(connection, self.request, End(text=reply.text, stop_reason=reply.stop_reason))

    async def fail(self, connection: AsyncConnection, kind: str, message: str) -> None:
        """Keep for the step why there is no text."""
        await requests.end(connection, self.request, End(error_kind=kind, error=message))


async def answer(process: Process, request: ModelRequest) -> None:
    """Call the model that a step asks for."""
    step = _Step(request.id)
    try:
        call = _call(request, await process.transact(process.models))
    except ValidationError as error:
        words = f"This question cannot be asked: {'; '.join(f'{one.where}: {one.what}' for one in problems(error))}."
        await process.transact(lambda c: step.fail(c, "bad_request", words))
        return
    await perform(process, call, step)


async def lose(connection: AsyncConnection, request: UUID, story: str) -> None:
    """Tell the step that a broker died over the call; it may ask again."""
    await _Step(request).fail(connection, "lost", story)


def _call(request: ModelRequest, models: AgentModels) -> Call:
    wanted = Prompt.model_validate(request.body)
    model = wanted.model or (models.planner_model if request.purpose == "plan" else models.advice_model)
    max_tokens = wanted.max_tokens or conversation.MAX_TOKENS
    body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "messages": wanted.messages, "metadata": {"user_id": request.address}}
    if wanted.system:
        body |= {"system": wanted.system}
    if wanted.answer_schema:
        body |= {"output_config": {"format": {"type": "json_schema", "schema": wanted.answer_schema}}}
    return Call(request=str(request.id), agent=models.name, goal_run=request.goal_run, task_run=None, epoch=None, lease=None,
                purpose=request.purpose, model=model, address=request.address, body=body, max_tokens=max_tokens)  # fmt: skip
