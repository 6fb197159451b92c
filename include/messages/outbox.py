"""Messages to workers: queued in the transaction of their cause, sent afterwards, and again if the streams lost them."""

from __future__ import annotations

from typing import Any, NamedTuple
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


class Letter(NamedTuple):
    """A message that is to be queued.

    ``key`` is its idempotency key: the same key is queued once. ``reply_to`` is the id of the message that it answers.
    """

    task_run: str
    epoch: int
    payload: Wire
    key: str
    reply_to: UUID | None = None

    @property
    def attempt(self) -> tuple[str, int]:
        """Task run and epoch."""
        return self.task_run, self.epoch


def answer(task_run: str, epoch: int, to: UUID, payload: Wire) -> Letter:
    """The one answer to a message."""
    return Letter(task_run, epoch, payload, reply_key(to), to)


async def queue_many(connection: AsyncConnection, agent: str, letters: list[Letter]) -> set[str]:
    """Queue signed messages to workers in the open transaction, numbered in the given order for each attempt.

    Args:
        connection: the open transaction.
        agent: whose outbox.
        letters: payloads of the broker's side.

    Returns:
        The keys that were queued: not those that were known, nor those of attempts whose keys are gone (they are over).

    Raises:
        EnvelopeRefused: one is larger than an envelope may be.
    """
    if not letters:
        return set()
    names = queries.columns("task_runs epochs", sorted({letter.attempt for letter in letters})) | {
        "keys": [letter.key for letter in letters]
    }
    async with connection.pipeline():
        await connection.execute(_SQL.lock_outboxes, names)
        lasts = await connection.execute(_SQL.last_messages, names)
        known = await connection.execute(_SQL.known_keys, names)
        open_ = {(row["task_run"], row["epoch"]): row for row in await lasts.fetchall()}
        there = {row["idempotency_key"] for row in await known.fetchall()}
    rows = []
    for letter in letters:
        if letter.attempt in open_ and letter.key not in there:
            there.add(letter.key)
            rows.append(_signed(letter, open_[letter.attempt]))
    if rows:
        columns = queries.columns("task_runs epochs seqs keys types bodies signatures", rows)
        await connection.execute(_SQL.queue_messages, {"agent": agent, **columns})
    return {row[3] for row in rows}


def _signed(letter: Letter, attempt: dict[str, Any]) -> tuple[str, int, int, str, str, bytes, str]:
    attempt["last"] += 1
    type_, body = make_body(new_id(), *letter.attempt, attempt["last"], letter.key, letter.payload, letter.reply_to, now())
    return *letter.attempt, attempt["last"], letter.key, type_, body, sign(attempt["in_key"], letter.task_run, "in", body)


async def queue(connection: AsyncConnection, agent: str, task_run: str, epoch: int, payload: Wire, key: str) -> bool:
    """Queue one message; see ``queue_many``. False if its key was queued before, or the attempt is over."""
    return bool(await queue_many(connection, agent, [Letter(task_run, epoch, payload, key)]))


async def reply(connection: AsyncConnection, agent: str, task_run: str, epoch: int, to: UUID, payload: Wire) -> bool:
    """Queue the one answer to a message; False if it was answered before."""
    return bool(await queue_many(connection, agent, [answer(task_run, epoch, to, payload)]))


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
