"""Calls that a dead broker left open: what left is settled at its worst case and never sent again, what did not leave is made anew."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from include.broker import calls, conversation, money, questions
from include.broker.models import Call, Reserved
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.messages.models import LlmError

_SQL = queries.load(__file__)
_STORY = "The broker ended while this model call was under way. It is booked at its worst case and not repeated."


async def recover(connection: AsyncConnection, agent: str, owner: str) -> int:
    """End the open calls of this agent's dead owners in the open transaction.

    Args:
        connection: the open transaction.
        agent: whose calls.
        owner: this process (alive).

    Returns:
        How many calls were ended.
    """
    others = await (await connection.execute(_SQL.owners_of_open_calls, {"agent": agent, "owner": owner})).fetchall()
    ended = 0
    for other in others:
        lock = await (await connection.execute(_SQL.owner_is_dead, {"owner": other["owner"]})).fetchone()
        if lock and lock["dead"]:
            rows = await (await connection.execute(_SQL.open_calls_of, {"agent": agent, "dead": other["owner"]})).fetchall()
            for row in rows:
                await (_release if row["state"] == "reserved" else _give_up)(connection, row)
            ended += len(rows)
    return ended


async def _release(connection: AsyncConnection, row: dict[str, Any]) -> None:
    call = Call(body={}, max_tokens=1, **{name: row[name] for name in Call.model_fields if name in row})
    reserved = Reserved(id=row["id"], call=call, micro=row["reserved_micro"], tokens=0)
    await money.release(connection, reserved, row["owner"], 0, "its broker ended before it was sent")
    await connection.execute(_SQL.forget_reserved, {"id": row["id"]})


async def _give_up(connection: AsyncConnection, row: dict[str, Any]) -> None:
    tokens = (row["input_tokens"], row["output_tokens"])
    await money.give_up(connection, row["id"], row["owner"], row["reserved_micro"], tokens, row["http_attempts"], _STORY)
    message = await (await connection.execute(_SQL.message_of, {"request": row["request"]})).fetchone()
    if message is None:
        await calls.end_request(connection, UUID(row["request"]), "failed", None, "lost", _STORY)
        return
    names = (row["agent"], message["task_run"], message["epoch"], message["message_id"])
    if message["type"] == "question":
        await questions.keep_no_answer(connection, *names, _STORY)
    else:
        await conversation.refuse(connection, *names, LlmError(kind="lost", message=_STORY + " Ask again."))
