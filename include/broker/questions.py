"""Questions of workers: what the agent's planner model is sent, and how its answer is kept."""

from __future__ import annotations

from include.broker import conversation
from include.broker.models import AgentModels, Call, Pending
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.errors import NotFound
from include.frozen import Frozen
from include.messages import outbox, strict_json
from include.messages.models import Answer
from include.tasks import batches

_SQL = queries.load(__file__)
MAX_TOKENS = 2_048
_SCHEMA = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": False}
_SYSTEM = """You are {agent}, who planned the work of several workers. One of them asks you something that lies beyond its task.
Decide, so that it can go on without asking again: a few plain sentences. You cannot widen what it may do or change."""


class _StoredQuestion(Frozen):
    """A worker's question."""

    question: str
    options: list[str]
    context: str


async def call(connection: AsyncConnection, models: AgentModels, pending: Pending) -> Call:
    """Make up the call that answers a question, on the lease of the attempt that asks.

    Args:
        connection: the open transaction.
        models: the agent's.
        pending: the question.
    """
    lease, task = await conversation.task_of(connection, pending.attempt)
    asked = await rows.amaybe(connection, _StoredQuestion, _SQL.question, id=pending.message_id)
    if asked is None:
        raise NotFound(f"question {pending.message_id} is not in the database")
    parts = [
        f"Goal: {lease.goal_text}",
        f"The worker's task: {task.title}\n{task.prompt}",
        f"Its question: {asked.question}",
        f"Options it sees: {asked.options}",
        f"Context: {asked.context}",
    ]
    address = f"{lease.goal_run}/answer/{pending.seq}"
    body = {
        "model": models.planner_model,
        "max_tokens": MAX_TOKENS,
        "system": _SYSTEM.format(agent=models.name),
        "messages": [{"role": "user", "content": "\n\n".join(parts)}],
        "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}},
        "metadata": {"user_id": address},
    }
    return Call(request=pending.idempotency_key, agent=models.name, goal_run=lease.goal_run, task_run=lease.task_run,
                epoch=lease.epoch, lease=lease.id, purpose="answer", model=models.planner_model, address=address, body=body,
                max_tokens=MAX_TOKENS)  # fmt: skip


def read(text: str) -> str:
    """Read the answer out of the model's text; the text itself where it does not keep to the schema."""
    try:
        value = strict_json.parse(text.encode())
        return str(value["answer"])[:8_000]
    except (strict_json.NotStrict, KeyError, TypeError):
        return text[:8_000]


async def keep(connection: AsyncConnection, agent: str, pending: Pending, answer: str, decided_by: str) -> None:
    """Store the answer, let the worker go on, and queue it."""
    attempt, said = pending.attempt, strict_json.storable(answer)
    await connection.execute(_SQL.lock_task_run, {"task_run": attempt.task_run})
    await connection.execute(_SQL.answer_question, {"id": pending.message_id, "answer": said, "decided_by": decided_by})
    if not await rows.ascalar(connection, _SQL.open_questions, **attempt._asdict()):
        await batches.unblock(connection, [attempt])
    await outbox.reply(connection, agent, attempt, pending.message_id, Answer(answer=said, decided_by=decided_by))


async def keep_no_answer(connection: AsyncConnection, agent: str, pending: Pending, reason: str) -> None:
    """Tell the worker that there is no answer, so that it decides itself or gives up."""
    text = f"No answer could be had ({reason[:500]}). Decide within your task, or finish with what you have."
    await keep(connection, agent, pending, text, "broker")
