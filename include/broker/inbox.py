"""Take a batch of messages from workers: open, insert first, act, all in one transaction; a redelivery changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.rows import class_row, scalar_row

from include import faults
from include.broker.effects import Effects, Heard, Number, Speaker
from include.broker.handlers import KINDS
from include.broker.kinds import ending
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.errors import EnvelopeRefused
from include.frozen import Frozen
from include.governance import service as governance
from include.governance.models import AuditEntry
from include.messages import outbox
from include.messages.envelopes import Sender, open_envelope
from include.messages.numbers import MOST_RANGES, Numbers
from include.messages.streams import Entry
from include.messages.strict_json import storable
from include.tasks import batches
from include.tasks.models import AttemptRef, AttemptState

_SQL = queries.load(__file__)
MOST_WORDS = 500
"""Longest reason of a refusal that is kept, in characters: a worker may have chosen a part of it."""
Speakers = dict[str, Speaker]
"""Who speaks on the stream of each task run."""


class Handled(NamedTuple):
    """What became of a batch.

    ``held``: endings that wait for lower numbers. ``asked``: a model has something to do. ``queued``: the outbox has something to send.
    """

    done: list[Entry]
    refused: list[tuple[Entry, str]]
    held: list[Entry]
    asked: bool
    queued: bool


async def take(connection: AsyncConnection, agent: str, entries: list[Entry], now: datetime) -> Handled:
    """Take a batch in the open transaction. Acknowledge only after it is committed.

    Args:
        connection: the open transaction.
        agent: whose broker this is.
        entries: as read, unchecked, with repetitions.
        now: the present moment.
    """
    speakers = await _speakers(connection, {entry.task_run for entry in entries})
    batch = _Batch(speakers)
    batch.open(entries, now)
    await batch.insert(connection, [message for message in batch.unknown if message.envelope.type not in ending.TYPES])
    last = [message for message in batch.unknown if message.envelope.type in ending.TYPES and batch.may_end(message)]
    await batch.insert(connection, last)
    again = await batch.judge_known(connection)
    effects = Effects(agent)
    for message in batch.in_order():
        effects.hear(message)
        KINDS[message.envelope.type].gather(effects, message)
    await effects.write(connection)
    repeated = await outbox.answer_again(connection, again) if again else 0
    await tell_refused(connection, agent, batch.refused, speakers)
    out = {id(entry) for entry, _ in batch.refused} | {id(entry) for entry in batch.held.values()}
    done = [entry for entry in entries if id(entry) not in out]
    faults.point("broker.take.before-commit")
    return Handled(done, batch.refused, list(batch.held.values()), effects.asked, effects.queued or bool(repeated))


class _LiveAttempt(Frozen):
    """By what the messages of a task run are judged."""

    lease: UUID
    task_run: str
    epoch: int
    goal_run: str
    capabilities: tuple[str, ...]
    granted_at: datetime
    taken: Any  # psycopg's multirange of the numbers that are in
    out_key: bytes
    state: AttemptState


class _Before(NamedTuple):
    """What took a number before."""

    task_run: str
    epoch: int
    seq: int
    idempotency_key: str
    body_sha256: str


async def _speakers(connection: AsyncConnection, task_runs: set[str]) -> Speakers:
    """Lock the live attempts of these task runs and read them as they are once we hold the locks."""
    names = {"task_runs": sorted(task_runs)}
    locks, reading = connection.cursor(row_factory=scalar_row), connection.cursor(row_factory=class_row(_LiveAttempt))
    while True:
        async with connection.pipeline():
            await locks.execute(_SQL.lock_attempts, names)
            await reading.execute(_SQL.attempts_of, names)
            locked = set(await locks.fetchall())
            attempts = await reading.fetchall()
        if all(attempt.lease in locked for attempt in attempts):  # else one was granted in between
            return {attempt.task_run: _speaker(attempt) for attempt in attempts}


def _speaker(attempt: _LiveAttempt) -> Speaker:
    sender = Sender(AttemptRef(attempt.task_run, attempt.epoch), attempt.out_key, attempt.granted_at)
    numbers = Numbers((part.lower, part.upper) for part in attempt.taken)
    return Speaker(attempt.lease, attempt.goal_run, attempt.capabilities, sender, numbers, attempt.state)


class _Batch:
    """One batch on its way: each message ends up fresh, known, refused or held."""

    def __init__(self, speakers: Speakers) -> None:
        self.refused: list[tuple[Entry, str]] = []
        self.held: dict[AttemptRef, Entry] = {}
        self.unknown: list[Heard] = []
        self._speakers = speakers
        self._known: list[Heard] = []
        self._fresh: list[Heard] = []

    def open(self, entries: list[Entry], now: datetime) -> None:
        """Verify the messages and sort them out; of several deliveries of one message the first stands for all."""
        first: dict[Number, Heard] = {}
        for entry in entries:
            try:
                message = _open_one(entry, self._speakers.get(entry.task_run), now)
                if first.setdefault(message.number, message).entry.body != entry.body:
                    raise EnvelopeRefused(_taken_words(message))
            except EnvelopeRefused as error:
                self.refused.append((entry, str(error)[:MOST_WORDS]))
        for _, message in sorted(first.items()):
            self._sort(message)

    def _sort(self, message: Heard) -> None:
        numbers = message.speaker.numbers
        if message.envelope.seq in numbers:
            self._known.append(message)
        elif not numbers.has_room(message.envelope.seq):
            self.refused.append((message.entry, f"more than {MOST_RANGES:,} gaps are left in the numbers before it"))
        elif message.envelope.type == "heartbeat":
            numbers.add(message.envelope.seq)
            self._fresh.append(message)
        else:
            self.unknown.append(message)

    async def insert(self, connection: AsyncConnection, messages: list[Heard]) -> None:
        """Take the numbers of these messages; one whose number was not free is known."""
        if not messages:
            return
        wanted = [(*m.number, m.key, m.envelope.id, m.envelope.type, m.digest) for m in messages]
        names = queries.columns("task_runs epochs seqs keys ids types digests", wanted)
        fresh = set(await rows.aevery(connection, Number, _SQL.take_messages, **names))
        for message in messages:
            if message.number in fresh:
                message.speaker.numbers.add(message.envelope.seq)
                self._fresh.append(message)
            else:
                self._known.append(message)

    def may_end(self, message: Heard) -> bool:
        """Check that all that comes before an ending is in; else hold the ending, one for each attempt."""
        if message.speaker.numbers.all_before(message.envelope.seq):
            return True
        if message.attempt in self.held:
            self.refused.append((message.entry, "another ending of this attempt waits already"))
        else:
            self.held[message.attempt] = message.entry
        return False

    async def judge_known(self, connection: AsyncConnection) -> list[UUID]:
        """Refuse what took another message's number or key; returns the ids of those that wait for an answer that may be lost."""
        if not self._known:
            return []
        names = queries.columns("task_runs epochs seqs", (message.number for message in self._known))
        found = await rows.aevery(connection, _Before, _SQL.taken, **names)
        before = {Number(one.task_run, one.epoch, one.seq): (one.idempotency_key, one.body_sha256) for one in found}
        again = []
        for message in self._known:
            # A number without a row was a heartbeat's: of those only the number is kept, and another one under it changes nothing.
            a_heartbeat = message.number not in before and message.envelope.seq in message.speaker.numbers
            if message.envelope.type == "heartbeat" and a_heartbeat:
                continue
            if before.get(message.number) != (message.key, message.digest):
                self.refused.append((message.entry, _taken_words(message)))
            elif KINDS[message.envelope.type].replies:
                again.append(message.envelope.id)
        return again

    def in_order(self) -> list[Heard]:
        """Return the new messages, by attempt and number."""
        return sorted(self._fresh, key=lambda message: message.number)


def _open_one(entry: Entry, speaker: Speaker | None, now: datetime) -> Heard:
    if speaker is None:
        raise EnvelopeRefused(f"no attempt at {entry.task_run} lives")
    return Heard(entry, speaker, open_envelope("out", entry.body, entry.signature, speaker.sender, now))


def _taken_words(message: Heard) -> str:
    return f"number {message.envelope.seq} or its key is taken by another message"


async def tell_refused(connection: AsyncConnection, agent: str, refused: Iterable[tuple[Entry, str]], speakers: Speakers) -> None:
    """Tell of refused messages: one entry and one event an attempt and batch, so that a flood of them does not become a flood of rows."""
    by_task: dict[str, list[str]] = {}
    for entry, reason in refused:
        by_task.setdefault(entry.task_run, []).append(storable(reason))
    entries, events = [], []
    for task_run, reasons in by_task.items():
        subject = task_run
        if speaker := speakers.get(task_run):
            subject = f"{task_run}/{speaker.attempt.epoch}"
            events.append((speaker.attempt, f"refused {len(reasons)} message(s) of this worker's stream: {reasons[0]}"))
        detail = {"count": len(reasons), "reason": reasons[0]}
        entries.append(AuditEntry(f"broker/{agent}", "messages.refused", subject, detail))
    await governance.record_many(connection, entries)
    await batches.tell(connection, events)
