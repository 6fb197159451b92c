"""Make one model call: count, reserve, say that it leaves, call, settle with its effect in the same transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from psycopg.types.json import Jsonb

from include import faults
from include.broker import conversation, money, questions, rules
from include.broker.anthropic import Outcome
from include.broker.models import Call, Reply, Reserved
from include.broker.process import Process
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.errors import AirlockError, BudgetExceeded, ModelFailed, StaleEpoch
from include.messages.models import LlmError

_SQL = queries.load(__file__)
Keep = Callable[[AsyncConnection, Reply], Awaitable[None]]
KeepFailure = Callable[[AsyncConnection, str, str], Awaitable[None]]


async def perform(process: Process, call: Call, keep: Keep, keep_failure: KeepFailure) -> None:
    """Make a call and keep its answer, or keep why there is none.

    Args:
        process: this broker.
        call: what to call; made at most once for its ``request``, by whichever replica reserves it.
        keep: what to do with the reply, in the transaction that settles the call.
        keep_failure: the same with a kind and a message; kinds as in ``model_requests.error_kind``.
    """
    owner = process.owner
    tokens = rules.worst_input_tokens(call.body, await process.endpoint.count(call.body))
    try:
        reserved = await process.transact(lambda c: money.reserve(c, call, tokens, owner, process.settings.offline))
    except BudgetExceeded as error:
        return await _fail(process, keep_failure, "budget", str(error))
    except ModelFailed as error:
        return await _fail(process, keep_failure, error.kind, str(error))
    except StaleEpoch:
        return None  # revoked meanwhile: its worker is told by task.cancel
    if reserved is None:
        return None  # another replica makes this call
    faults.point("broker.reserve.after-commit")
    if not await process.transact(lambda c: money.mark_sent(c, reserved, owner)):
        await process.transact(lambda c: money.release(c, reserved, owner, 0, "revoked before it was sent"))
        return None
    faults.point("broker.request.before")
    outcome = await process.endpoint.create(call.body)
    faults.point("broker.request.after")
    await process.transact(lambda c: _end(c, process, reserved, owner, outcome, keep, keep_failure))
    faults.point("broker.settle.after-commit")
    return None


async def _fail(process: Process, keep_failure: KeepFailure, kind: str, message: str) -> None:
    await process.transact(lambda connection: keep_failure(connection, kind, message))


async def _end(
    connection: AsyncConnection, process: Process, reserved: Reserved, owner: str, outcome: Outcome, keep: Keep, keep_failure: KeepFailure
) -> None:
    """Settle the call and keep its effect; nothing, if another process took us for dead and ended it."""
    if outcome.reply is not None:
        if await money.settle(connection, reserved, owner, outcome.reply.usage, outcome.attempts, process.settings.offline):
            await keep(connection, outcome.reply)
            faults.point("broker.settle.before-commit")
        return
    failure = outcome.failure or ModelFailed("down", "no answer")
    if outcome.maybe_billed:
        tokens = (reserved.tokens - reserved.call.max_tokens, reserved.call.max_tokens)
        ours = await money.give_up(connection, reserved.id, owner, reserved.micro, tokens, outcome.attempts, str(failure))
    else:
        ours = await money.release(connection, reserved, owner, outcome.attempts, str(failure))
    if ours:
        await keep_failure(connection, failure.kind, str(failure))


async def answer_message(process: Process, pending: dict[str, Any]) -> None:
    """Answer an llm.request or a question (a row of ``to_answer``)."""
    if pending["type"] == "question":
        await _answer_question(process, pending)
    else:
        await _answer_turn(process, pending)


async def _answer_turn(process: Process, pending: dict[str, Any]) -> None:
    task_run, epoch, message_id = pending["task_run"], pending["epoch"], pending["message_id"]

    async def prepare(connection: AsyncConnection) -> Call | None:
        agent = await process.agent_row(connection)
        try:
            return await conversation.turn_call(connection, agent, task_run, epoch, pending["idempotency_key"])
        except AirlockError as error:
            problem = LlmError(kind="model", message=str(error))
            await conversation.refuse(connection, process.agent, task_run, epoch, message_id, problem)
            return None

    async def keep_failure(connection: AsyncConnection, kind: str, message: str) -> None:
        problem = LlmError(kind="budget", message=message) if kind == "budget" else conversation.why(ModelFailed(kind, message))
        await conversation.refuse(connection, process.agent, task_run, epoch, message_id, problem)

    if call := await process.transact(prepare):
        await perform(process, call, lambda c, reply: conversation.keep_reply(c, call, message_id, reply), keep_failure)


async def _answer_question(process: Process, pending: dict[str, Any]) -> None:
    names = (process.agent, pending["task_run"], pending["epoch"], pending["message_id"])

    async def prepare(connection: AsyncConnection) -> Call:
        return await questions.call(connection, await process.agent_row(connection), pending)

    async def keep(connection: AsyncConnection, reply: Reply) -> None:
        await questions.keep(connection, *names, questions.read(reply.text), call.model)

    call = await process.transact(prepare)
    await perform(process, call, keep, lambda c, kind, message: questions.keep_no_answer(c, *names, f"{kind}: {message}"))


async def answer_request(process: Process, request: dict[str, Any]) -> None:
    """Answer a model request of an Airflow step (a row of ``model_requests``)."""

    async def keep(connection: AsyncConnection, reply: Reply) -> None:
        if reply.stop_reason == "refusal":
            return await fail(connection, "refusal", "The model refuses to answer this. Word the goal differently.")
        if not reply.text:
            return await fail(connection, "malformed", f"The model gave no text (stop reason {reply.stop_reason}). Run this step again.")
        response = {"text": reply.text, "stop_reason": reply.stop_reason}
        return await end_request(connection, request["id"], "done", response)

    async def fail(connection: AsyncConnection, kind: str, message: str) -> None:
        await end_request(connection, request["id"], "failed", None, kind, message)

    agent = await process.transact(process.agent_row)
    await perform(process, _request_call(request, agent), keep, fail)


async def end_request(
    connection: AsyncConnection, id_: Any, state: str, response: dict[str, Any] | None, kind: str | None = None, message: str | None = None
) -> None:
    """Write the answer of a model request, once."""
    names = {"id": id_, "state": state, "response": None if response is None else Jsonb(response), "error_kind": kind, "error": message}
    await connection.execute(_SQL.end_request, names)


def _request_call(request: dict[str, Any], agent: dict[str, Any]) -> Call:
    wanted = request["body"]
    model = wanted.get("model") or agent["planner_model" if request["purpose"] == "plan" else "advice_model"]
    max_tokens = int(wanted.get("max_tokens") or conversation.MAX_TOKENS)
    body = {"model": model, "max_tokens": max_tokens, "messages": wanted["messages"], "metadata": {"user_id": request["address"]}}
    if wanted.get("system"):
        body["system"] = wanted["system"]
    if wanted.get("schema"):
        body["output_config"] = {"format": {"type": "json_schema", "schema": wanted["schema"]}}
    return Call(request=str(request["id"]), agent=agent["name"], goal_run=request["goal_run"], task_run=None, epoch=None, lease=None,
                purpose=request["purpose"], model=model, address=request["address"], body=body, max_tokens=max_tokens)  # fmt: skip
