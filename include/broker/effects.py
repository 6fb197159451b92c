"""What a batch of new messages changes: gathered message by message, written kind by kind, one statement for each kind."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from include.broker import conversation
from include.clock import new_id
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.messages import outbox
from include.messages.models import LlmResponse, PermissionDeny, PermissionGrant, Receipt, Wire
from include.messages.streams import Entry
from include.messages.strict_json import storable

_SQL = queries.load(__file__)
ENDINGS = ("task.complete", "task.failed")
_LIVING = ["SPAWNING", "READY", "WORKING", "BLOCKED"]
_FAILURES = {
    "gave_up": "worker_failed", "crashed": "worker_failed", "model": "model", "away": "model_away", "budget": "budget", "cancelled": None,
}  # fmt: skip
_RULE = "the lease's capabilities"
Attempt = tuple[str, int]


class Opened(NamedTuple):
    """A message that is what it claims, with the row of its attempt."""

    entry: Entry
    attempt: dict[str, Any]
    envelope: Any

    @property
    def number(self) -> tuple[str, int, int]:
        """Task run, epoch, seq: taken once."""
        return self.envelope.task_id, self.envelope.epoch, self.envelope.seq

    @property
    def key(self) -> str:
        """The idempotency key, bound to the attempt: no worker can take another's."""
        return f"{self.envelope.task_id}/{self.envelope.epoch}/{self.envelope.idempotency_key}"

    @property
    def digest(self) -> str:
        """SHA-256 of the exact bytes."""
        return hashlib.sha256(self.entry.body).hexdigest()


class Effects:
    """The rows, moves and answers of one batch.

    Args:
        agent: whose broker this is.
        messages: new ones, by attempt and number.
    """

    def __init__(self, agent: str, messages: list[Opened]) -> None:
        self.asked = False
        self.queued: set[str] = set()
        self._agent = agent
        self._messages = messages
        self._ready: list[Attempt] = []
        self._working: list[Attempt] = []
        self._blocked: list[Attempt] = []
        self._steps: dict[Attempt, str] = {}
        self._milestones: list[tuple[str, int, str]] = []
        self._artifacts: list[tuple[Any, ...]] = []
        self._questions: list[tuple[Any, ...]] = []
        self._decisions: list[tuple[Any, ...]] = []
        self._turns: list[Opened] = []
        self._endings: list[tuple[Attempt, dict[str, Any]]] = []
        self._letters: list[outbox.Letter] = []
        for message in messages:
            self._wake(message)
            _GATHER[message.envelope.type](self, message)

    async def write(self, connection: AsyncConnection) -> None:
        """Write all of it in the open transaction, the numbers first."""
        if not self._messages:
            return
        async with connection.pipeline():
            numbers = [(message.attempt["lease"], message.envelope.seq) for message in self._messages]
            await connection.execute(_SQL.keep_numbers, queries.columns("leases seqs", numbers))
            await self._write_moves(connection)
            await self._write_rows(connection)
            for attempt, ending in self._endings:
                await self._finish(connection, attempt, ending)
        for message in self._turns:
            await self._take_turn(connection, message)
        self.queued = await outbox.queue_many(connection, self._agent, self._letters)

    async def _write_moves(self, connection: AsyncConnection) -> None:
        await _move(connection, _SQL.move_attempts, self._ready, "READY", ["SPAWNING"])
        await _move(connection, _SQL.move_tasks, self._ready, "EXECUTING", ["LEASED"])
        await _move(connection, _SQL.move_attempts, self._working, "WORKING", ["READY"])
        await _move(connection, _SQL.move_attempts, self._blocked, "BLOCKED", ["WORKING"])
        await _move(connection, _SQL.move_tasks, self._blocked, "BLOCKED", ["EXECUTING"])

    async def _write_rows(self, connection: AsyncConnection) -> None:
        steps = [(*attempt, step) for attempt, step in self._steps.items()]
        rule = {"agent": self._agent, "rule": _RULE, "policy_sha256": hashlib.sha256(_RULE.encode()).hexdigest()}
        for statement, names, rows, more in (
            (_SQL.say_steps, "task_runs epochs steps", steps, {}),
            (_SQL.milestones, "task_runs epochs details", self._milestones, {}),
            (_SQL.keep_artifacts, "ids goal_runs task_runs epochs types digests datas", self._artifacts, {}),
            (_SQL.keep_questions, "ids task_runs epochs questions options contexts urgencies", self._questions, {}),
            (_SQL.record_decisions, "ids goal_runs task_runs epochs actions decisions reasons inputs", self._decisions, rule),
        ):
            if rows:
                await connection.execute(statement, queries.columns(names, rows) | more)

    async def _finish(self, connection: AsyncConnection, attempt: Attempt, ending: dict[str, Any]) -> None:
        names = {"task_run": attempt[0], "epoch": attempt[1]}
        await connection.execute(_SQL.finish, names | ending | {"from": _LIVING})
        await connection.execute(_SQL.move_task, names | {"to": "EXECUTING", "from": ["BLOCKED"]})

    async def _take_turn(self, connection: AsyncConnection, message: Opened) -> None:
        envelope = message.envelope
        error = await conversation.add_request(connection, *message.number[:2], envelope.id, envelope.payload)
        if error is not None:
            short = error.model_copy(update={"message": storable(error.message)[:4_000]})
            self._answer(message, LlmResponse(stop_reason=None, content=[], error=short))

    # -- one message ---------------------------------------------------------------------------------------------------------

    def _wake(self, message: Opened) -> None:
        """The first message shows that the worker is there; the first that is not "ready", that it works."""
        attempt = message.attempt
        if attempt["state"] == "SPAWNING":
            self._ready.append(message.number[:2])
            attempt["state"] = "READY"
        if attempt["state"] == "READY" and getattr(message.envelope.payload, "status", "working") != "ready":
            self._working.append(message.number[:2])
            attempt["state"] = "WORKING"

    def _answer(self, message: Opened, payload: Wire) -> None:
        self._letters.append(outbox.answer(*message.number[:2], message.envelope.id, payload))

    def _heartbeat(self, message: Opened) -> None:
        self._steps[message.number[:2]] = _clean(message, message.envelope.payload.step)

    def _progress(self, message: Opened) -> None:
        step = _clean(message, message.envelope.payload.step)
        self._steps[message.number[:2]] = step
        self._milestones.append((*message.number[:2], step))

    def _llm_request(self, message: Opened) -> None:
        self.asked = True
        self._turns.append(message)

    def _question(self, message: Opened) -> None:
        self.asked = True
        asked = _clean(message, message.envelope.payload.model_dump())
        self._questions.append((message.envelope.id, *message.number[:2], asked["question"], json.dumps(asked["options"]), asked["context"],
                                asked["urgency"]))  # fmt: skip
        if asked["urgency"] == "blocking":
            self._blocked.append(message.number[:2])

    def _permission(self, message: Opened) -> None:
        attempt, wanted = message.attempt, message.envelope.payload
        has = sorted(attempt["capabilities"])
        permitted = wanted.capability in has
        reason = f"The lease of this attempt has: {', '.join(has) or 'no capability'}. A lease is never widened while it lives."
        inputs = _clean(message, {"capability": wanted.capability, "detail": wanted.detail, "reason": wanted.reason, "lease": has})
        decision = "permit" if permitted else "forbid"
        row = (new_id(), attempt["goal_run"], *message.number[:2], inputs["capability"], decision, reason, json.dumps(inputs))
        self._decisions.append(row)
        if permitted:
            self._answer(message, PermissionGrant(capability=wanted.capability, approved_by="broker", note="Granted with the lease."))
        else:
            self._answer(message, PermissionDeny(capability=wanted.capability, decided_by="broker", reason=reason))

    def _artifact(self, message: Opened) -> None:
        payload = message.envelope.payload
        data = json.dumps(_clean(message, payload.data))
        self._artifacts.append((new_id(), message.attempt["goal_run"], *message.number[:2], payload.artifact_type, message.digest, data))
        self._answer(message, Receipt())

    def _complete(self, message: Opened) -> None:
        payload = message.envelope.payload
        ending = {"state": "COMPLETING", "commit": payload.commit, "summary": storable(payload.summary), "failure": None, "reason": ""}
        self._endings.append((message.number[:2], ending))
        self._answer(message, Receipt())

    def _failed(self, message: Opened) -> None:
        payload = message.envelope.payload
        ending = {"state": "FAILED", "commit": None, "summary": "", "failure": _FAILURES[payload.kind], "reason": storable(payload.reason)}
        self._endings.append((message.number[:2], ending))
        self._answer(message, Receipt())


def _clean(message: Opened, value: Any) -> Any:
    # A NUL can stand in JSON only as this escape: without it nothing needs to be walked.
    return storable(value) if rb"\u0000" in message.entry.body else value


async def _move(connection: AsyncConnection, statement: str, attempts: list[Attempt], to: str, from_: list[str]) -> None:
    if attempts:
        await connection.execute(statement, queries.columns("task_runs epochs", sorted(set(attempts))) | {"to": to, "from": from_})


_GATHER = {
    "heartbeat": Effects._heartbeat,
    "progress": Effects._progress,
    "llm.request": Effects._llm_request,
    "question": Effects._question,
    "permission.request": Effects._permission,
    "artifact": Effects._artifact,
    "task.complete": Effects._complete,
    "task.failed": Effects._failed,
}
