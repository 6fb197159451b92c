"""What a batch of new messages changes: gathered message by message, written kind by kind, one statement for each kind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from include.artifacts import hints
from include.artifacts.hints import Hint
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.leases import metering
from include.messages import outbox
from include.messages.envelopes import Sender
from include.messages.models import Question, Wire
from include.messages.numbers import Numbers
from include.messages.streams import Entry
from include.messages.strict_json import storable
from include.policy import service as policy
from include.policy.models import PolicyRecord
from include.tasks import batches
from include.tasks.batches import LastWord
from include.tasks.models import AttemptRef, AttemptState

_SQL = queries.load(__file__)


@dataclass
class Speaker:
    """The live attempt whose worker speaks. ``numbers`` and ``state`` are those after the messages that were looked at so far."""

    lease: UUID
    goal_run: str
    capabilities: tuple[str, ...]
    sender: Sender
    numbers: Numbers
    state: AttemptState

    @property
    def attempt(self) -> AttemptRef:
        """Which attempt it is."""
        return self.sender.attempt


class Number(NamedTuple):
    """What a message takes, once."""

    task_run: str
    epoch: int
    seq: int


class Heard(NamedTuple):
    """A message that is what it claims, and who speaks."""

    entry: Entry
    speaker: Speaker
    envelope: Any

    @property
    def attempt(self) -> AttemptRef:
        """Whose message it is."""
        return self.speaker.sender.attempt

    @property
    def number(self) -> Number:
        """Its number, which is taken once."""
        return Number(*self.attempt, self.envelope.seq)

    @property
    def key(self) -> str:
        """The idempotency key, bound to the attempt: no worker can take another's."""
        return f"{self.envelope.task_id}/{self.envelope.epoch}/{self.envelope.idempotency_key}"

    @property
    def digest(self) -> str:
        """SHA-256 of the exact bytes."""
        return hashlib.sha256(self.entry.body).hexdigest()

    def clean(self, value: Any) -> Any:
        """Return a value of the message without NUL characters, which PostgreSQL cannot hold."""
        # A NUL can stand in JSON only as this escape: without it nothing needs to be walked.
        return storable(value) if rb"\u0000" in self.entry.body else value


@dataclass
class Effects:
    """The rows, moves and answers of one batch of an agent's workers; each kind of message adds its own (``include.broker.kinds``).

    ``later``: what needs a look at the database first; done in this order, after all else is written. ``asked``: a model has work.
    """

    agent: str
    ready: list[AttemptRef] = field(default_factory=list)
    working: list[AttemptRef] = field(default_factory=list)
    blocked: list[AttemptRef] = field(default_factory=list)
    numbers: list[tuple[UUID, int]] = field(default_factory=list)
    steps: dict[AttemptRef, str] = field(default_factory=dict)
    milestones: list[tuple[AttemptRef, str]] = field(default_factory=list)
    hints: list[Hint] = field(default_factory=list)
    questions: list[tuple[UUID, AttemptRef, Question]] = field(default_factory=list)
    decided: list[PolicyRecord] = field(default_factory=list)
    endings: list[tuple[AttemptRef, LastWord]] = field(default_factory=list)
    later: list[Callable[[AsyncConnection], Awaitable[None]]] = field(default_factory=list)
    letters: list[outbox.Letter] = field(default_factory=list)
    asked: bool = False
    queued: bool = False

    def hear(self, message: Heard) -> None:
        """Take a message's number in, as a sign of life.

        The first message shows that the worker is there; the first that is not "ready", that it works.
        """
        speaker = message.speaker
        self.numbers.append((speaker.lease, message.envelope.seq))
        if speaker.state is AttemptState.SPAWNING:
            self.ready.append(message.attempt)
            speaker.state = AttemptState.READY
        if speaker.state is AttemptState.READY and getattr(message.envelope.payload, "status", "working") != "ready":
            self.working.append(message.attempt)
            speaker.state = AttemptState.WORKING

    def answer(self, message: Heard, payload: Wire) -> None:
        """Queue the one answer to a worker's message."""
        self.letters.append(outbox.answer(message.attempt, message.envelope.id, payload))

    async def write(self, connection: AsyncConnection) -> None:
        """Write all of it in the open transaction, the numbers first."""
        if not self.numbers:
            return
        async with connection.pipeline():
            await metering.keep_numbers(connection, self.numbers)
            await batches.ready(connection, self.ready)
            await batches.work(connection, self.working)
            await batches.block(connection, self.blocked)
            await batches.say(connection, self.steps)
            await batches.tell(connection, self.milestones)
            await hints.keep(connection, self.hints)
            await self._keep_questions(connection)
            await policy.record_uses(connection, self.agent, self.decided)
            for attempt, word in self.endings:
                await batches.finish(connection, attempt, word)
        for work in self.later:
            await work(connection)
        self.queued = bool(await outbox.queue_many(connection, self.agent, self.letters))

    async def _keep_questions(self, connection: AsyncConnection) -> None:
        if self.questions:
            rows = [(id_, *of, q.question, json.dumps(q.options), q.context, q.urgency) for id_, of, q in self.questions]
            names = "ids task_runs epochs questions options contexts urgencies"
            await connection.execute(_SQL.keep_questions, queries.columns(names, rows))
