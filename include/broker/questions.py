"""Questions of workers: the agent's planner model answers each in one call, on the same lease."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from include.broker import conversation
from include.broker.models import Call
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.errors import NotFound
from include.messages import outbox, strict_json
from include.messages.models import Answer

_SQL = queries.load(__file__)
MAX_TOKENS = 2_048
_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": False}
_SYSTEM = """You are {agent}, who planned the work of several workers. One of them asks you something that lies beyond its task.
Decide, so that it can go on without asking again: a few plain sentences. You cannot widen what it may do or change."""


async def call(connection: AsyncConnection, agent: dict[str, Any], pending: dict[str, Any]) -> Call:
    """The call that answers a question.

    Args:
        connection: the open transaction.
        agent: its row.
        pending: row of ``to_answer``.
    """
    row, task = await conversation.task_of(connection, pending["task_run"], pending["epoch"])
    asked = await (await connection.execute(_SQL.question, {"id": pending["message_id"]})).fetchone()
    if asked is None:
        raise NotFound(f"question {pending['message_id']} is not in the database")
    parts = [
        f"Goal: {row['goal_text']}",
        f"The worker's task: {task.title}\n{task.prompt}",
        f"Its question: {asked['question']}",
        f"Options it sees: {asked['options']}",
        f"Context: {asked['context']}",
    ]
    address = f"{row['goal_run']}/answer/{pending['seq']}"
    body = {
        "model": agent["planner_model"],
        "max_tokens": MAX_TOKENS,
        "system": _SYSTEM.format(agent=agent["name"]),
        "messages": [{"role": "user", "content": "\n\n".join(parts)}],
        "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}},
        "metadata": {"user_id": address},
    }
    return Call(
        request=pending["idempotency_key"],
        agent=agent["name"],
        goal_run=row["goal_run"],
        task_run=row["task_run"],
        epoch=row["epoch"],
        lease=row["lease"],
        purpose="answer",
        model=agent["planner_model"],
        address=address,
        body=body,
        max_tokens=MAX_TOKENS,
    )


def read(text: str) -> str:
    """The answer in the model's text; the text itself where it does not keep to the schema."""
    try:
        value = strict_json.parse(text.encode())
        return str(value["answer"])[:8_000]
    except (strict_json.NotStrict, KeyError, TypeError):
        return text[:8_000]


async def keep(connection: AsyncConnection, agent: str, task_run: str, epoch: int, message_id: UUID, answer: str, decided_by: str) -> None:
    """Store the answer, let the worker go on, and queue it."""
    names = {"id": message_id, "answer": strict_json.storable(answer), "decided_by": decided_by, "task_run": task_run, "epoch": epoch}
    await connection.execute(_SQL.lock_task_run, names)
    await connection.execute(_SQL.answer_question, names)
    still = await (await connection.execute(_SQL.open_questions, names)).fetchone()
    if still and not still["open"]:
        await connection.execute(_SQL.move_attempt, names | {"to": "WORKING", "from": ["BLOCKED"]})
        await connection.execute(_SQL.move_task, names | {"to": "EXECUTING", "from": ["BLOCKED"]})
    await outbox.reply(connection, agent, task_run, epoch, message_id, Answer(answer=names["answer"], decided_by=decided_by))


async def keep_no_answer(connection: AsyncConnection, agent: str, task_run: str, epoch: int, message_id: UUID, reason: str) -> None:
    """There is no answer: say so, so that the worker decides itself or gives up."""
    text = f"No answer could be had ({reason[:500]}). Decide within your task, or finish with what you have."
    await keep(connection, agent, task_run, epoch, message_id, text, "broker")
