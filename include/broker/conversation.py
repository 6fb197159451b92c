"""The transcripts: the broker owns them. What a worker is asked, what it may add, and what the model is sent."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from include.broker import rules
from include.broker.models import AgentModels, AssignedLease, Call, Pending, Reply, TranscriptLine
from include.broker.rules import Resumption
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.errors import BadInput, EnvelopeRefused, ModelFailed, NotFound
from include.messages import outbox
from include.messages.models import LlmError, LlmRequest, LlmResponse
from include.messages.strict_json import storable
from include.plans.models import Plan, Task
from include.tasks import batches
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)
MAX_TOKENS = 8_192
"""Output tokens of one turn."""
_TOLD = {"timeout": "unknown", "down": "away", "rate_limited": "away", "overloaded": "away"}
"""Kinds of the endpoint's failures, as workers are told them; every other is of the kind ``model``: trying again does not help."""
_NEEDS = {"run_tests": "test", "git_commit": "git-commit"}
"""Tools that a worker has only with this capability."""


async def task_of(connection: AsyncConnection, attempt: AttemptRef) -> tuple[AssignedLease, Task]:
    """Read the lease that an attempt's prompt is made of, and its task in the plan.

    Raises:
        NotFound: no lease of this epoch, or the plan does not hold the task.
    """
    lease = await rows.amaybe(connection, AssignedLease, _SQL.assigned_lease, **attempt._asdict())
    if lease is None or lease.plan is None:
        raise NotFound(f"{attempt.task_run}/{attempt.epoch} has no lease of its newest epoch, or its goal run has no plan.")
    for task in Plan.model_validate_json(lease.plan).tasks:
        if task.key == lease.key:
            return lease, task
    raise NotFound(f"The plan of {lease.goal_run} holds no task {lease.key!r}.")


def first_prompt(lease: AssignedLease, task: Task) -> str:
    """Word what the worker's model is told first."""
    parts = [
        f"Goal: {lease.goal_text}",
        f"Your task, one of several that together reach this goal: {task.title}",
        task.prompt,
        f"You may change only paths that match: {', '.join(task.touches)}",
        "Commit your work, then call finish. What you commit is tested again and merged; nobody reads what you say instead.",
    ]
    if lease.feedback:
        parts.append(f"An earlier attempt at this task was not accepted. What was wrong with it:\n{lease.feedback}")
    return "\n\n".join(parts)


async def beginning(connection: AsyncConnection, lease: AssignedLease, task: Task) -> Resumption:
    """Find what an attempt's transcript begins with: the task's prompt at turn 1, or the completed transcript of an older attempt."""
    if lease.resumed_from:
        older = await _transcript(connection, AttemptRef(lease.task_run, lease.resumed_from))
        if resumed := rules.resumption(older, lease.input_commit, lease.kept):
            return resumed
    return Resumption(1, [{"type": "text", "text": first_prompt(lease, task)}])


async def begin(connection: AsyncConnection, lease: AssignedLease, start: Resumption) -> None:
    """Write the beginning of an attempt's transcript (once): what an older one said, and the message that asks for the first turn."""
    at = _asks_at(start.first_turn)
    if start.first_turn > 1:
        await connection.execute(_SQL.copy_transcript, lease.attempt._asdict() | {"resumed_from": lease.resumed_from, "below": at})
        await batches.begin_at(connection, lease.attempt, start.first_turn)
    await _write(connection, lease.attempt, at, TranscriptLine("user", start.content))


async def add_request(connection: AsyncConnection, attempt: AttemptRef, message_id: UUID, request: LlmRequest) -> LlmError | None:
    """Take the worker's request into the transcript.

    Returns:
        None if the model can be called; else why not, for the worker.
    """
    if await rows.ascalar(connection, _SQL.turns_asked, **attempt._asdict(), id=message_id):
        return LlmError(kind="model", message="The last llm.request has no answer yet: ask for one turn at a time.")
    lines = await _transcript(connection, attempt)
    answers = [line.content for line in lines if line.role == "assistant"]
    if not lines or request.turn != len(answers) + 1:
        return LlmError(kind="model", message=f"Turn {request.turn} was asked for; the next one is {len(answers) + 1}.")
    # The message that asks for the first turn was written with the assignment.
    stands = request.turn == await rows.ascalar(connection, _SQL.first_turn, **attempt._asdict())
    try:
        content = rules.next_user_content(request.turn, None if stands else answers[-1], storable(request.results))
    except BadInput as error:
        return LlmError(kind="model", message=str(error))
    if content is not None:
        await _write(connection, attempt, _asks_at(request.turn), TranscriptLine("user", content))
    return None


async def turn_call(connection: AsyncConnection, models: AgentModels, pending: Pending) -> Call:
    """Make up the call that gives an attempt its next turn.

    Args:
        connection: the open transaction.
        models: the agent's.
        pending: the llm.request.
    """
    lease, task = await task_of(connection, pending.attempt)
    *before, asks = await _transcript(connection, pending.attempt)
    messages = [line._asdict() for line in (*before, asks._replace(content=_cached(asks.content)))]
    address = f"{lease.goal_run}/{lease.key}/{lease.epoch}"
    system, tools = _definition(task, lease.capabilities)
    body = {"model": models.worker_model, "max_tokens": MAX_TOKENS, "system": _cached([{"type": "text", "text": system}]),
            "messages": messages, "tools": tools, "metadata": {"user_id": address}}  # fmt: skip
    return Call(request=pending.idempotency_key, agent=models.name, goal_run=lease.goal_run, task_run=lease.task_run, epoch=lease.epoch,
                lease=lease.id, purpose="work", model=models.worker_model, address=address, body=body, max_tokens=MAX_TOKENS)  # fmt: skip


async def keep_reply(connection: AsyncConnection, call: Call, pending: Pending, reply: Reply) -> None:
    """Write the model's turn into the transcript, behind what was asked, and queue it for the worker."""
    await _write(connection, pending.attempt, len(call.body["messages"]) + 1, TranscriptLine("assistant", reply.content))
    payload = LlmResponse(stop_reason=reply.stop_reason, content=reply.content)
    try:
        await outbox.reply(connection, call.agent, pending.attempt, pending.message_id, payload)
    except EnvelopeRefused as error:
        await refuse(connection, call.agent, pending, LlmError(kind="model", message=str(error)))


async def refuse(connection: AsyncConnection, agent: str, pending: Pending, error: LlmError) -> None:
    """Tell the worker why there is no turn."""
    await outbox.reply(connection, agent, pending.attempt, pending.message_id, no_turn(error))


def no_turn(error: LlmError) -> LlmResponse:
    """Word the answer to an llm.request that gets no turn."""
    short = LlmError(kind=error.kind, message=storable(error.message)[:4_000])
    return LlmResponse(stop_reason=None, content=[], error=short)


def why(failure: ModelFailed) -> LlmError:
    """Word a failure of the model's endpoint for the worker."""
    return LlmError(kind=_TOLD.get(failure.kind, "model"), message=f"{failure.kind}: {failure}")


def _asks_at(turn: int) -> int:
    """Compute the position of the user message that asks for a turn; the model's answer stands behind it."""
    return 2 * turn - 1


async def _transcript(connection: AsyncConnection, attempt: AttemptRef) -> list[TranscriptLine]:
    return await rows.aevery(connection, TranscriptLine, _SQL.transcript, **attempt._asdict())


async def _write(connection: AsyncConnection, attempt: AttemptRef, position: int, line: TranscriptLine) -> None:
    names = attempt._asdict() | {"position": position, "role": line.role, "content": Jsonb(storable(line.content))}
    await connection.execute(_SQL.write_turn, names)


def _cached(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # A mark at the end of system and of the newest message: each turn reads the last one's prompt from the cache, at a tenth of its price.
    return [*blocks[:-1], {**blocks[-1], "cache_control": {"type": "ephemeral"}}] if blocks else blocks


def _definition(task: Task, capabilities: list[str]) -> tuple[str, list[dict[str, Any]]]:
    from include.catalog import store as catalog
    from include.worker.tool_definitions import TOOL_DEFINITIONS

    definition = catalog.load(task.worker)
    by_name = {tool["name"]: tool for tool in TOOL_DEFINITIONS}
    tools = [tool for name, tool in by_name.items() if name in definition.tools and _NEEDS.get(name) in (None, *capabilities)]
    return definition.identity.system_prompt, tools
