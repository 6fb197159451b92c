"""Take a batch of messages from workers: open, insert first, act, all in one transaction; a redelivery changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from psycopg.types.json import Jsonb

from include.broker import conversation
from include.clock import new_id
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.errors import EnvelopeRefused
from include.messages import outbox
from include.messages.envelopes import open_envelope
from include.messages.models import PermissionDeny, PermissionGrant, Receipt
from include.messages.streams import Entry
from include.messages.strict_json import storable

_SQL = queries.load(__file__)
_ENDINGS = ("task.complete", "task.failed")
_ANSWERED = ("llm.request", "question", "permission.request", "artifact", *_ENDINGS)
_LIVING = ["SPAWNING", "READY", "WORKING", "BLOCKED"]
_FAILURES = {
    "gave_up": "worker_failed", "crashed": "worker_failed", "model": "model", "away": "model_away", "budget": "budget", "cancelled": None,
}  # fmt: skip
_RULE = "the lease's capabilities"


class Opened(NamedTuple):
    """A message that is what it claims."""

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


class Taken(NamedTuple):
    """What became of a batch. ``held``: endings that wait for lower numbers. ``asked``: a model has something to do."""

    done: list[Entry]
    refused: list[tuple[Entry, str]]
    held: list[Entry]
    asked: bool


async def take(connection: AsyncConnection, agent: str, entries: list[Entry], now: datetime) -> Taken:
    """Take a batch in the open transaction. Acknowledge only after it is committed.

    Args:
        connection: the open transaction.
        agent: whose broker this is.
        entries: as read, unchecked, with repetitions.
        now: the present moment.
    """
    attempts = await _attempts(connection, {entry.task_run for entry in entries})
    opened, refused = _open(entries, attempts, now)
    endings = [message for message in opened if message.envelope.type in _ENDINGS]
    fresh = await _insert(connection, [message for message in opened if message.envelope.type not in _ENDINGS])
    held = []
    for message in endings:
        if await _all_before(connection, message):
            fresh |= await _insert(connection, [message])
        else:
            held.append(message.entry)
    again, frauds = await _known(connection, [m for m in opened if m.number not in fresh and m.entry not in held])
    refused += frauds
    new = _first_of_each(m for m in opened if m.number in fresh)
    await _act(connection, agent, new)
    await outbox.answer_again(connection, again)
    await _tell_refused(connection, refused, attempts)
    out = {id(entry) for entry, _ in refused} | {id(entry) for entry in held}
    done = [entry for entry in entries if id(entry) not in out]
    return Taken(done, refused, held, any(m.envelope.type in ("llm.request", "question") for m in new))


async def _attempts(connection: AsyncConnection, task_runs: set[str]) -> dict[str, dict[str, Any]]:
    names: dict[str, Any] = {"task_runs": sorted(task_runs)}
    rows = await (await connection.execute(_SQL.attempts_of, names)).fetchall()
    names = {"leases": [row["lease"] for row in rows]}
    await connection.execute(_SQL.lock_leases, names)  # from here on, one consumer at a time an attempt
    rows = await (await connection.execute(_SQL.attempts_of, {"task_runs": sorted(task_runs)})).fetchall()
    return {row["task_run"]: row for row in rows}


def _open(entries: list[Entry], attempts: dict[str, dict[str, Any]], now: datetime) -> tuple[list[Opened], list[tuple[Entry, str]]]:
    opened: list[Opened] = []
    refused = []
    first: dict[tuple[str, int, int], Opened] = {}
    for entry in entries:
        try:
            message = _open_one(entry, attempts.get(entry.task_run), now)
            if first.setdefault(message.number, message).entry.body != entry.body:
                raise EnvelopeRefused(f"number {message.envelope.seq} is taken by another message")
            opened.append(message)
        except EnvelopeRefused as error:
            refused.append((entry, str(error)))
    return opened, refused


def _open_one(entry: Entry, attempt: dict[str, Any] | None, now: datetime) -> Opened:
    if attempt is None:
        raise EnvelopeRefused(f"no attempt at {entry.task_run} lives")
    key, task_run, epoch = bytes(attempt["out_key"]), entry.task_run, attempt["epoch"]
    envelope = open_envelope("out", entry.body, entry.signature, key, task_run, epoch, attempt["granted_at"], now)
    return Opened(entry, attempt, envelope)


def _first_of_each(messages: Iterable[Opened]) -> list[Opened]:
    return [message for _, message in sorted({message.number: message for message in messages}.items())]


async def _insert(connection: AsyncConnection, messages: list[Opened]) -> set[tuple[str, int, int]]:
    """Take the numbers; returns those that were free."""
    rows = _first_of_each(messages)
    if not rows:
        return set()
    names = _numbers(rows) | {
        "keys": [m.key for m in rows], "ids": [m.envelope.id for m in rows], "types": [m.envelope.type for m in rows],
        "digests": [m.digest for m in rows],
    }  # fmt: skip
    taken = await (await connection.execute(_SQL.take_messages, names)).fetchall()
    return {(row["task_run"], row["epoch"], row["seq"]) for row in taken}


def _numbers(messages: list[Opened]) -> dict[str, Any]:
    columns = list(zip(*(message.number for message in messages), strict=True))
    return {"task_runs": list(columns[0]), "epochs": list(columns[1]), "seqs": list(columns[2])}


async def _all_before(connection: AsyncConnection, message: Opened) -> bool:
    task_run, epoch, seq = message.number
    row = await (await connection.execute(_SQL.count_before, {"task_run": task_run, "epoch": epoch, "seq": seq})).fetchone()
    return row is not None and row["taken"] == seq - 1


async def _known(connection: AsyncConnection, messages: list[Opened]) -> tuple[list[UUID], list[tuple[Entry, str]]]:
    """Of messages that were not new: the ids of those that wait for an answer, and those that took another's number or key."""
    if not messages:
        return [], []
    rows = await (await connection.execute(_SQL.taken, _numbers(messages))).fetchall()
    before = {(row["task_run"], row["epoch"], row["seq"]): (row["idempotency_key"], row["body_sha256"]) for row in rows}
    frauds = [(m.entry, f"number {m.envelope.seq} or its key is taken by another message") for m in messages
              if before.get(m.number) != (m.key, m.digest)]  # fmt: skip
    again = [m.envelope.id for m in messages if before.get(m.number) == (m.key, m.digest) and m.envelope.type in _ANSWERED]
    return again, frauds


async def _act(connection: AsyncConnection, agent: str, messages: list[Opened]) -> None:
    if messages:
        await connection.execute(_SQL.alive, {"leases": list({m.attempt["lease"] for m in messages})})
    last_beat = {m.number[:2]: m for m in messages if m.envelope.type == "heartbeat"}
    for message in messages:
        names = {"task_run": message.envelope.task_id, "epoch": message.envelope.epoch}
        await _wake(connection, message, names)
        if message.envelope.type != "heartbeat":
            await _HANDLERS[message.envelope.type](connection, agent, message, names)
    for message in last_beat.values():
        await _say(connection, message)


async def _wake(connection: AsyncConnection, message: Opened, names: dict[str, Any]) -> None:
    """The first message shows that the worker is there; the first that is not "ready", that it works."""
    attempt = message.attempt
    if attempt["state"] == "SPAWNING":
        await connection.execute(_SQL.move_attempt, names | {"to": "READY", "from": ["SPAWNING"]})
        await connection.execute(_SQL.move_task, names | {"to": "EXECUTING", "from": ["LEASED"]})
        attempt["state"] = "READY"
    if attempt["state"] == "READY" and getattr(message.envelope.payload, "status", "working") != "ready":
        await connection.execute(_SQL.move_attempt, names | {"to": "WORKING", "from": ["READY"]})
        attempt["state"] = "WORKING"


async def _say(connection: AsyncConnection, message: Opened) -> None:
    step = storable(message.envelope.payload.step)
    if step != message.attempt["step"]:
        await connection.execute(_SQL.say_step, {"task_run": message.envelope.task_id, "epoch": message.envelope.epoch, "step": step})


async def _progress(connection: AsyncConnection, _agent: str, message: Opened, names: dict[str, Any]) -> None:
    await _say(connection, message)
    await connection.execute(_SQL.milestone, names | {"detail": storable(message.envelope.payload.step)})


async def _llm_request(connection: AsyncConnection, agent: str, message: Opened, names: dict[str, Any]) -> None:
    envelope = message.envelope
    error = await conversation.add_request(connection, names["task_run"], names["epoch"], envelope.id, envelope.payload)
    if error is not None:
        await conversation.refuse(connection, agent, names["task_run"], names["epoch"], envelope.id, error)


async def _question(connection: AsyncConnection, _agent: str, message: Opened, names: dict[str, Any]) -> None:
    asked = storable(message.envelope.payload.model_dump())
    asked["options"] = Jsonb(asked["options"])
    await connection.execute(_SQL.keep_question, names | asked | {"id": message.envelope.id})
    if asked["urgency"] == "blocking":
        await connection.execute(_SQL.move_attempt, names | {"to": "BLOCKED", "from": ["WORKING"]})
        await connection.execute(_SQL.move_task, names | {"to": "BLOCKED", "from": ["EXECUTING"]})


async def _permission(connection: AsyncConnection, agent: str, message: Opened, names: dict[str, Any]) -> None:
    attempt, wanted = message.attempt, message.envelope.payload
    has = sorted(attempt["capabilities"])
    permitted = wanted.capability in has
    reason = f"The lease of this attempt has: {', '.join(has) or 'no capability'}. A lease is never widened while it lives."
    inputs = storable({"capability": wanted.capability, "detail": wanted.detail, "reason": wanted.reason, "lease": has})
    decision = {
        "id": new_id(),
        "goal_run": attempt["goal_run"],
        "action": storable(wanted.capability),
        "decision": "permit" if permitted else "forbid",
        "decided_by": "broker",
        "rules": [_RULE],
        "reason": reason,
        "policy_sha256": hashlib.sha256(_RULE.encode()).hexdigest(),
        "inputs": Jsonb(inputs),
    }
    await connection.execute(_SQL.record_decision, names | decision)
    answer: PermissionGrant | PermissionDeny = PermissionDeny(capability=wanted.capability, decided_by="broker", reason=reason)
    if permitted:
        answer = PermissionGrant(capability=wanted.capability, approved_by="broker", note="Granted with the lease.")
    await outbox.reply(connection, agent, names["task_run"], names["epoch"], message.envelope.id, answer)


async def _artifact(connection: AsyncConnection, agent: str, message: Opened, names: dict[str, Any]) -> None:
    payload = message.envelope.payload
    await connection.execute(_SQL.keep_artifact, names | {
        "id": new_id(), "goal_run": message.attempt["goal_run"], "type": payload.artifact_type, "sha256": message.digest,
        "data": Jsonb(storable(payload.data))})  # fmt: skip
    await outbox.reply(connection, agent, names["task_run"], names["epoch"], message.envelope.id, Receipt())


async def _complete(connection: AsyncConnection, agent: str, message: Opened, names: dict[str, Any]) -> None:
    payload = message.envelope.payload
    ending = {"state": "COMPLETING", "commit": payload.commit, "summary": storable(payload.summary), "failure": None, "reason": ""}
    await _finish(connection, agent, message, names | ending)


async def _failed(connection: AsyncConnection, agent: str, message: Opened, names: dict[str, Any]) -> None:
    payload = message.envelope.payload
    ending = {"state": "FAILED", "commit": None, "summary": "", "failure": _FAILURES[payload.kind], "reason": storable(payload.reason)}
    await _finish(connection, agent, message, names | ending)


async def _finish(connection: AsyncConnection, agent: str, message: Opened, names: dict[str, Any]) -> None:
    await connection.execute(_SQL.finish, names | {"from": _LIVING})
    await connection.execute(_SQL.move_task, names | {"to": "EXECUTING", "from": ["BLOCKED"]})
    await outbox.reply(connection, agent, names["task_run"], names["epoch"], message.envelope.id, Receipt())


async def _tell_refused(connection: AsyncConnection, refused: list[tuple[Entry, str]], attempts: dict[str, dict[str, Any]]) -> None:
    """One event an attempt and batch, however many messages were refused: a flood of them must not become a flood of rows."""
    by_task: dict[str, list[str]] = {}
    for entry, reason in refused:
        by_task.setdefault(entry.task_run, []).append(reason)
    for task_run, reasons in by_task.items():
        if task_run in attempts:
            detail = storable(f"refused {len(reasons)} message(s) of this worker's stream: {reasons[0]}")
            await connection.execute(_SQL.milestone, {"task_run": task_run, "epoch": attempts[task_run]["epoch"], "detail": detail})


_HANDLERS = {
    "progress": _progress,
    "llm.request": _llm_request,
    "question": _question,
    "permission.request": _permission,
    "artifact": _artifact,
    "task.complete": _complete,
    "task.failed": _failed,
}
