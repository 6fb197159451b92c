"""The transcripts: the broker owns them. What a worker is asked, what it may add, and what the model is sent."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from include.broker import rules
from include.broker.models import Call, Reply
from include.broker.rules import Resumption
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.errors import BadInput, EnvelopeRefused, ModelFailed, NotFound
from include.messages import outbox
from include.messages.models import LlmError, LlmRequest, LlmResponse
from include.messages.strict_json import storable
from include.plans.models import Plan, Task

_SQL = queries.load(__file__)
MAX_TOKENS = 8_192
"""Output tokens of one turn."""
_TOLD = {"timeout": "unknown", "down": "away", "rate_limited": "away", "overloaded": "away"}
"""Kinds of the endpoint's failures, as workers are told them; every other is of the kind ``model``: trying again does not help."""
_NEEDS = {"run_tests": "test", "git_commit": "git-commit"}
"""Tools that a worker has only with this capability."""


async def task_of(connection: AsyncConnection, task_run: str, epoch: int) -> tuple[dict[str, Any], Task]:
    """The row that an attempt's prompt is made of, and its task in the plan.

    Raises:
        NotFound: no lease of this epoch, or the plan does not hold the task.
    """
    row = await (await connection.execute(_SQL.task, {"task_run": task_run, "epoch": epoch})).fetchone()
    if row is None or row["plan"] is None:
        raise NotFound(f"{task_run}/{epoch} has no lease of its newest epoch, or its goal run has no plan.")
    for task in Plan.model_validate_json(row["plan"]).tasks:
        if task.key == row["key"]:
            return row, task
    raise NotFound(f"The plan of {row['goal_run']} holds no task {row['key']!r}.")


def first_prompt(row: dict[str, Any], task: Task) -> str:
    """What the worker's model is told first."""
    parts = [
        f"Goal: {row['goal_text']}",
        f"Your task, one of several that together reach this goal: {task.title}",
        task.prompt,
        f"You may change only paths that match: {', '.join(task.touches)}",
        "Commit your work, then call finish. What you commit is tested again and merged; nobody reads what you say instead.",
    ]
    if row["feedback"]:
        parts.append(f"An earlier attempt at this task was not accepted. What was wrong with it:\n{row['feedback']}")
    return "\n\n".join(parts)


async def beginning(connection: AsyncConnection, row: dict[str, Any], task: Task) -> Resumption:
    """What an attempt's transcript begins with: the task's prompt at turn 1, or the end of that of an older attempt, completed."""
    if row["resumed_from"]:
        names = {"task_run": row["task_run"], "epoch": row["resumed_from"]}
        older = await (await connection.execute(_SQL.transcript, names)).fetchall()
        if resumed := rules.resumption(older, row["input_commit"], row["kept"]):
            return resumed
    return Resumption(1, [{"type": "text", "text": first_prompt(row, task)}])


async def begin(connection: AsyncConnection, row: dict[str, Any], start: Resumption) -> None:
    """Write the beginning of an attempt's transcript (once): what an older one said, and the message that asks for the first turn."""
    names = {"task_run": row["task_run"], "epoch": row["epoch"], "resumed_from": row["resumed_from"], "first_turn": start.first_turn}
    at = _asks_at(start.first_turn)
    if start.first_turn > 1:
        await connection.execute(_SQL.copy_transcript, names | {"below": at})
        await connection.execute(_SQL.set_first_turn, names)
    await _write(connection, row["task_run"], row["epoch"], at, "user", start.content)


async def add_request(connection: AsyncConnection, task_run: str, epoch: int, message_id: UUID, request: LlmRequest) -> LlmError | None:
    """Take the worker's request into the transcript.

    Returns:
        None if the model can be called; else why not, for the worker.
    """
    names = {"task_run": task_run, "epoch": epoch, "id": message_id}
    open_turns = await (await connection.execute(_SQL.turns_asked, names)).fetchone()
    if open_turns and open_turns["open"]:
        return LlmError(kind="model", message="The last llm.request has no answer yet: ask for one turn at a time.")
    rows = await (await connection.execute(_SQL.transcript, names)).fetchall()
    answers = [row["content"] for row in rows if row["role"] == "assistant"]
    if not rows or request.turn != len(answers) + 1:
        return LlmError(kind="model", message=f"Turn {request.turn} was asked for; the next one is {len(answers) + 1}.")
    first = await (await connection.execute(_SQL.first_turn, names)).fetchone()
    stands = first is not None and request.turn == first["first_turn"]  # the message that asks for it was written with the assignment
    try:
        content = rules.next_user_content(request.turn, None if stands else answers[-1], storable(request.results))
    except BadInput as error:
        return LlmError(kind="model", message=str(error))
    if content is not None:
        await _write(connection, task_run, epoch, _asks_at(request.turn), "user", content)
    return None


async def turn_call(connection: AsyncConnection, agent: dict[str, Any], task_run: str, epoch: int, request: str) -> Call:
    """The call that gives the attempt's next turn.

    Args:
        connection: the open transaction.
        agent: its row.
        task_run: of the attempt.
        epoch: of the attempt.
        request: the stored idempotency key of the llm.request.
    """
    row, task = await task_of(connection, task_run, epoch)
    rows = await (await connection.execute(_SQL.transcript, {"task_run": task_run, "epoch": epoch})).fetchall()
    messages = [{"role": line["role"], "content": line["content"]} for line in rows]
    messages[-1] = {"role": "user", "content": _cached(messages[-1]["content"])}
    address = f"{row['goal_run']}/{row['key']}/{epoch}"
    system, tools = _definition(task, row["capabilities"])
    body = {"model": agent["worker_model"], "max_tokens": MAX_TOKENS, "system": _cached([{"type": "text", "text": system}]),
            "messages": messages, "tools": tools, "metadata": {"user_id": address}}  # fmt: skip
    return Call(request=request, agent=agent["name"], goal_run=row["goal_run"], task_run=task_run, epoch=epoch, lease=row["lease"],
                purpose="work", model=agent["worker_model"], address=address, body=body, max_tokens=MAX_TOKENS)  # fmt: skip


async def keep_reply(connection: AsyncConnection, call: Call, message_id: UUID, reply: Reply) -> None:
    """Write the model's turn into the transcript and queue it for the worker."""
    assert call.task_run is not None and call.epoch is not None
    position = len(call.body["messages"]) + 1
    await _write(connection, call.task_run, call.epoch, position, "assistant", reply.content)
    payload = LlmResponse(stop_reason=reply.stop_reason, content=reply.content)
    try:
        await outbox.reply(connection, call.agent, call.task_run, call.epoch, message_id, payload)
    except EnvelopeRefused as error:
        await refuse(connection, call.agent, call.task_run, call.epoch, message_id, LlmError(kind="model", message=str(error)))


async def refuse(connection: AsyncConnection, agent: str, task_run: str, epoch: int, message_id: UUID, error: LlmError) -> None:
    """Tell the worker why there is no turn."""
    short = LlmError(kind=error.kind, message=storable(error.message)[:4_000])
    await outbox.reply(connection, agent, task_run, epoch, message_id, LlmResponse(stop_reason=None, content=[], error=short))


def why(failure: ModelFailed) -> LlmError:
    """A failure of the model's endpoint, as the worker is told it."""
    return LlmError(kind=_TOLD.get(failure.kind, "model"), message=f"{failure.kind}: {failure}")


def _asks_at(turn: int) -> int:
    """The position of the user message that asks for a turn; the model's answer stands behind it."""
    return 2 * turn - 1


async def _write(connection: AsyncConnection, task_run: str, epoch: int, position: int, role: str, content: list[dict[str, Any]]) -> None:
    names = {"task_run": task_run, "epoch": epoch, "position": position, "role": role, "content": Jsonb(storable(content))}
    await connection.execute(_SQL.write_turn, names)


def _cached(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # A mark at the end of system and of the newest message: each turn reads the last one's prompt from the cache, at a tenth of its price.
    return [*blocks[:-1], {**blocks[-1], "cache_control": {"type": "ephemeral"}}] if blocks else blocks


def _definition(task: Task, capabilities: list[str]) -> tuple[str, list[dict[str, Any]]]:
    from include.catalog import store as catalog
    from include.worker.tool_definitions import TOOL_DEFINITIONS

    definition = catalog.load(task.worker)
    allowed = [tool for tool in TOOL_DEFINITIONS if tool["name"] in definition.tools]
    tools = [tool for tool in allowed if _NEEDS.get(tool["name"]) in (None, *capabilities)]
    return definition.identity.system_prompt, tools
