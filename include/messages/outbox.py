"""Messages to workers: queued in the transaction of their cause, sent afterwards, and again if the streams lost them."""

from __future__ import annotations

from uuid import UUID

from include import faults
from include.clock import new_id, now
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.messages.envelopes import make_body
from include.messages.models import Wire
from include.messages.signatures import sign
from include.messages.streams import Streams

_SQL = queries.load(__file__)


def reply_key(message_id: UUID) -> str:
    """The idempotency key of the one answer to a message."""
    return f"reply:{message_id}"


async def queue(
    connection: AsyncConnection, agent: str, task_run: str, epoch: int, payload: Wire, key: str, reply_to: UUID | None = None
) -> bool:
    """Queue a signed message to a worker in the open transaction.

    Args:
        connection: the open transaction.
        agent: whose outbox.
        task_run: to which it goes.
        epoch: of the attempt.
        payload: a payload of the broker's side.
        key: idempotency key; the same key is queued once.
        reply_to: the id of the message that it answers.

    Returns:
        False if this key was queued before, or the attempt's keys are gone (it is over).

    Raises:
        EnvelopeRefused: larger than an envelope may be.
    """
    names = {"agent": agent, "task_run": task_run, "epoch": epoch, "key": key}
    await connection.execute(_SQL.lock_outbox, names)
    row = await (await connection.execute(_SQL.next_message, names)).fetchone()
    if row is None:
        return False
    type_, body = make_body(new_id(), task_run, epoch, row["seq"], key, payload, reply_to, now())
    signature = sign(row["in_key"], task_run, "in", body)
    await connection.execute(_SQL.queue_message, names | {"seq": row["seq"], "type": type_, "body": body, "signature": signature})
    return True


async def reply(connection: AsyncConnection, agent: str, task_run: str, epoch: int, to: UUID, payload: Wire) -> bool:
    """Queue the one answer to a message; False if it was answered before."""
    return await queue(connection, agent, task_run, epoch, payload, reply_key(to), to)


async def send_unsent(connection: AsyncConnection, streams: Streams, agent: str, limit: int = 500) -> int:
    """Append what waits to the streams, in order, and mark it. A crash in between sends it twice; workers know the numbers.

    Returns:
        How many were sent; 0 also if another replica is sending.
    """
    mine = await (await connection.execute(_SQL.lock_sender, {"agent": agent})).fetchone()
    if not mine or not mine["mine"]:
        return 0
    rows = await (await connection.execute(_SQL.unsent, {"agent": agent, "limit": limit})).fetchall()
    if rows:
        faults.point("broker.append.before")
        await streams.append((row["task_run"], bytes(row["body"]), row["signature"]) for row in rows)
        faults.point("broker.append.after")
        await connection.execute(_SQL.mark_sent, {"ids": [row["id"] for row in rows]})
    return len(rows)


async def send_again(connection: AsyncConnection, task_runs: list[str]) -> int:
    """Let everything that was sent to the live attempts of these task runs go out once more; returns how many messages."""
    return (await connection.execute(_SQL.send_again, {"task_runs": task_runs})).rowcount


async def answer_again(connection: AsyncConnection, message_ids: list[UUID]) -> int:
    """The answers to these messages go out once more, if that was more than 5 s ago; returns how many."""
    return (await connection.execute(_SQL.answer_again, {"keys": [reply_key(id_) for id_ in message_ids]})).rowcount
