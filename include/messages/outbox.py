"""Messages to workers: queued in the transaction of their cause, sent afterwards, and again if the streams lost them."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from include import faults
from include.clock import new_id, now
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.messages.envelopes import EnvelopeHead, make_body
from include.messages.models import Wire
from include.messages.signatures import sign
from include.messages.streams import Streams
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)


def reply_key(message_id: UUID) -> str:
    """Make the idempotency key of the one answer to a message."""
    return f"reply:{message_id}"


class Letter(NamedTuple):
    """A message that is to be queued.

    ``key`` is its idempotency key: the same key is queued once. ``reply_to`` is the id of the message that it answers.
    """

    attempt: AttemptRef
    payload: Wire
    key: str
    reply_to: UUID | None = None


class _Box(NamedTuple):
    """The outbox of a live attempt: its key, and the number of its last message."""

    task_run: str
    epoch: int
    in_key: bytes
    last: int


class _Unsent(NamedTuple):
    """A message that waits to be sent."""

    id: int
    task_run: str
    body: bytes
    signature: str


def answer(attempt: AttemptRef, to: UUID, payload: Wire) -> Letter:
    """Make the one answer to a message."""
    return Letter(attempt, payload, reply_key(to), to)


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
    boxes, known = connection.cursor(row_factory=class_row(_Box)), connection.cursor(row_factory=scalar_row)
    async with connection.pipeline():
        await connection.execute(_SQL.lock_outboxes, names)
        await boxes.execute(_SQL.last_messages, names)
        await known.execute(_SQL.known_keys, names)
        open_ = {AttemptRef(box.task_run, box.epoch): box for box in await boxes.fetchall()}
        there = set(await known.fetchall())
    made = []
    for letter in letters:
        if (box := open_.get(letter.attempt)) and letter.key not in there:
            there.add(letter.key)
            open_[letter.attempt] = box = box._replace(last=box.last + 1)
            made.append(_signed(letter, box))
    if made:
        columns = queries.columns("task_runs epochs seqs keys types bodies signatures", made)
        await connection.execute(_SQL.queue_messages, {"agent": agent, **columns})
    return {key for _, _, _, key, *_ in made}


def _signed(letter: Letter, box: _Box) -> tuple[str, int, int, str, str, bytes, str]:
    type_, body = make_body(EnvelopeHead(new_id(), letter.attempt, box.last, letter.key, now(), letter.reply_to), letter.payload)
    return *letter.attempt, box.last, letter.key, type_, body, sign(box.in_key, box.task_run, "in", body)


async def queue(connection: AsyncConnection, agent: str, attempt: AttemptRef, payload: Wire, key: str) -> bool:
    """Queue one message; see ``queue_many``. False if its key was queued before, or the attempt is over."""
    return bool(await queue_many(connection, agent, [Letter(attempt, payload, key)]))


async def reply(connection: AsyncConnection, agent: str, attempt: AttemptRef, to: UUID, payload: Wire) -> bool:
    """Queue the one answer to a message; False if it was answered before."""
    return bool(await queue_many(connection, agent, [answer(attempt, to, payload)]))


async def send_unsent(connection: AsyncConnection, streams: Streams, agent: str, limit: int = 500) -> int:
    """Append what waits to the streams, in order, and mark it. A crash in between sends it twice; workers know the numbers.

    Returns:
        How many were sent; 0 also if another replica is sending.
    """
    if not await rows.ascalar(connection, _SQL.lock_sender, agent=agent):
        return 0
    unsent = await rows.aevery(connection, _Unsent, _SQL.unsent, agent=agent, limit=limit)
    if unsent:
        faults.point("broker.append.before")
        await streams.append((message.task_run, message.body, message.signature) for message in unsent)
        faults.point("broker.append.after")
        await connection.execute(_SQL.mark_sent, {"ids": [message.id for message in unsent]})
    return len(unsent)


async def send_again(connection: AsyncConnection, task_runs: list[str]) -> int:
    """Let everything that was sent to the live attempts of these task runs go out once more; returns how many messages."""
    return (await connection.execute(_SQL.send_again, {"task_runs": task_runs})).rowcount


async def answer_again(connection: AsyncConnection, message_ids: list[UUID]) -> int:
    """Let the answers to these messages go out once more, if they were sent more than 5 s ago; returns how many."""
    return (await connection.execute(_SQL.answer_again, {"keys": [reply_key(id_) for id_ in message_ids]})).rowcount
