"""Take a batch of messages from workers: open, insert first, act, all in one transaction; a redelivery changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from include import faults
from include.broker.effects import ENDINGS, Effects, Opened
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.errors import EnvelopeRefused
from include.messages import outbox
from include.messages.envelopes import open_envelope
from include.messages.numbers import MOST_RANGES, Numbers
from include.messages.streams import Entry
from include.messages.strict_json import storable

_SQL = queries.load(__file__)
_ANSWERED = ("llm.request", "question", "permission.request", "artifact", *ENDINGS)
MOST_WORDS = 500
"""Longest reason of a refusal that is kept, in characters: a worker may have chosen a part of it."""
Attempts = dict[str, dict[str, Any]]


class Taken(NamedTuple):
    """What became of a batch.

    ``held``: endings that wait for lower numbers. ``asked``: a model has something to do. ``queued``: the outbox has something to send.
    """

    done: list[Entry]
    refused: list[tuple[Entry, str]]
    held: list[Entry]
    asked: bool
    queued: bool


async def take(connection: AsyncConnection, agent: str, entries: list[Entry], now: datetime) -> Taken:
    """Take a batch in the open transaction. Acknowledge only after it is committed.

    Args:
        connection: the open transaction.
        agent: whose broker this is.
        entries: as read, unchecked, with repetitions.
        now: the present moment.
    """
    attempts = await _attempts(connection, {entry.task_run for entry in entries})
    batch = _Batch(attempts)
    batch.open(entries, now)
    await batch.insert(connection, [message for message in batch.unknown if message.envelope.type not in ENDINGS])
    await batch.insert(connection, [message for message in batch.unknown if message.envelope.type in ENDINGS and batch.may_end(message)])
    again = await batch.judge_known(connection)
    effects = Effects(agent, batch.in_order())
    await effects.write(connection)
    repeated = await outbox.answer_again(connection, again) if again else 0
    await tell_refused(connection, agent, batch.refused, attempts)
    out = {id(entry) for entry, _ in batch.refused} | {id(entry) for entry in batch.held.values()}
    done = [entry for entry in entries if id(entry) not in out]
    faults.point("broker.take.before-commit")
    return Taken(done, batch.refused, list(batch.held.values()), effects.asked, bool(effects.queued or repeated))


async def _attempts(connection: AsyncConnection, task_runs: set[str]) -> Attempts:
    """The live attempts of these task runs, locked, as they are once we hold the locks."""
    names = {"task_runs": sorted(task_runs)}
    while True:
        async with connection.pipeline():
            locks = await connection.execute(_SQL.lock_attempts, names)
            reading = await connection.execute(_SQL.attempts_of, names)
            locked = {row["id"] for row in await locks.fetchall()}
            rows = await reading.fetchall()
        if all(row["lease"] in locked for row in rows):  # else one was granted in between
            break
    for row in rows:
        row["numbers"] = Numbers((part.lower, part.upper) for part in row["taken"])
    return {row["task_run"]: row for row in rows}


class _Batch:
    """One batch on its way: each message ends up fresh, known, refused or held."""

    def __init__(self, attempts: Attempts) -> None:
        self.refused: list[tuple[Entry, str]] = []
        self.held: dict[tuple[str, int], Entry] = {}
        self.unknown: list[Opened] = []
        self._attempts = attempts
        self._known: list[Opened] = []
        self._fresh: list[Opened] = []

    def open(self, entries: list[Entry], now: datetime) -> None:
        """Verify and sort out; of several deliveries of one message the first stands for all."""
        first: dict[tuple[str, int, int], Opened] = {}
        for entry in entries:
            try:
                message = _open_one(entry, self._attempts.get(entry.task_run), now)
                if first.setdefault(message.number, message).entry.body != entry.body:
                    raise EnvelopeRefused(_taken_words(message))
            except EnvelopeRefused as error:
                self.refused.append((entry, str(error)[:MOST_WORDS]))
        for _, message in sorted(first.items()):
            self._sort(message)

    def _sort(self, message: Opened) -> None:
        numbers: Numbers = message.attempt["numbers"]
        if message.envelope.seq in numbers:
            self._known.append(message)
        elif not numbers.has_room(message.envelope.seq):
            self.refused.append((message.entry, f"more than {MOST_RANGES:,} gaps are left in the numbers before it"))
        elif message.envelope.type == "heartbeat":
            numbers.add(message.envelope.seq)
            self._fresh.append(message)
        else:
            self.unknown.append(message)

    async def insert(self, connection: AsyncConnection, messages: list[Opened]) -> None:
        """Take the numbers of these; what was not free is known."""
        if not messages:
            return
        rows = [(*m.number, m.key, m.envelope.id, m.envelope.type, m.digest) for m in messages]
        names = queries.columns("task_runs epochs seqs keys ids types digests", rows)
        taken = await (await connection.execute(_SQL.take_messages, names)).fetchall()
        fresh = {(row["task_run"], row["epoch"], row["seq"]) for row in taken}
        for message in messages:
            if message.number in fresh:
                message.attempt["numbers"].add(message.envelope.seq)
                self._fresh.append(message)
            else:
                self._known.append(message)

    def may_end(self, message: Opened) -> bool:
        """Whether all that comes before an ending is in; else it is held, one for each attempt."""
        if message.attempt["numbers"].all_before(message.envelope.seq):
            return True
        if message.number[:2] in self.held:
            self.refused.append((message.entry, "another ending of this attempt waits already"))
        else:
            self.held[message.number[:2]] = message.entry
        return False

    async def judge_known(self, connection: AsyncConnection) -> list[UUID]:
        """Refuse what took another message's number or key; returns the ids of those that wait for an answer that may be lost."""
        if not self._known:
            return []
        names = queries.columns("task_runs epochs seqs", (message.number for message in self._known))
        rows = await (await connection.execute(_SQL.taken, names)).fetchall()
        before = {(row["task_run"], row["epoch"], row["seq"]): (row["idempotency_key"], row["body_sha256"]) for row in rows}
        again = []
        for message in self._known:
            # A number without a row was a heartbeat's: of those only the number is kept, and another one under it changes nothing.
            a_heartbeat = message.number not in before and message.envelope.seq in message.attempt["numbers"]
            if message.envelope.type == "heartbeat" and a_heartbeat:
                continue
            if before.get(message.number) != (message.key, message.digest):
                self.refused.append((message.entry, _taken_words(message)))
            elif message.envelope.type in _ANSWERED:
                again.append(message.envelope.id)
        return again

    def in_order(self) -> list[Opened]:
        """What is new, by attempt and number."""
        return sorted(self._fresh, key=lambda message: message.number)


def _open_one(entry: Entry, attempt: dict[str, Any] | None, now: datetime) -> Opened:
    if attempt is None:
        raise EnvelopeRefused(f"no attempt at {entry.task_run} lives")
    key, task_run, epoch = attempt["out_key"], entry.task_run, attempt["epoch"]
    envelope = open_envelope("out", entry.body, entry.signature, key, task_run, epoch, attempt["granted_at"], now)
    return Opened(entry, attempt, envelope)


def _taken_words(message: Opened) -> str:
    return f"number {message.envelope.seq} or its key is taken by another message"


async def tell_refused(connection: AsyncConnection, agent: str, refused: Iterable[tuple[Entry, str]], attempts: Attempts) -> None:
    """One entry and one event an attempt and batch, however many messages were refused: a flood of them must not become a flood of rows."""
    by_task: dict[str, list[str]] = {}
    for entry, reason in refused:
        by_task.setdefault(entry.task_run, []).append(storable(reason))
    if not by_task:
        return
    subjects = {task_run: f"{task_run}/{attempts[task_run]['epoch']}" if task_run in attempts else task_run for task_run in by_task}
    told = [(subjects[task_run], len(reasons), reasons[0]) for task_run, reasons in by_task.items()]
    await connection.execute(_SQL.audit_refused, {"agent": agent} | queries.columns("subjects numbers reasons", told))
    events = [
        (task_run, attempts[task_run]["epoch"], f"refused {len(reasons)} message(s) of this worker's stream: {reasons[0]}")
        for task_run, reasons in by_task.items()
        if task_run in attempts
    ]
    await connection.execute(_SQL.milestones, queries.columns("task_runs epochs details", events))
