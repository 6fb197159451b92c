"""Open and make envelopes. Opening: size, signature, strict JSON, type of this direction, task run, epoch, clock. In this order."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import ValidationError

from include.errors import EnvelopeRefused
from include.frozen import problems
from include.messages import strict_json
from include.messages.models import FROM_BROKER, FROM_WORKER, IN_PAYLOADS, MAX_BODY_BYTES, OUT_PAYLOADS, Envelope, Wire
from include.messages.signatures import Direction, verify
from include.tasks.models import AttemptRef

CLOCK_WINDOW = timedelta(minutes=15)
"""How far the clock of a sandbox may be off. A message that is sent again keeps its ``ts``, so it may be as old as its attempt."""

_TYPES = {payload: type_ for type_, payload in (OUT_PAYLOADS | IN_PAYLOADS).items()}


class Sender(NamedTuple):
    """Whose message is expected: the attempt of the stream, its key of this direction, and when it began (nothing of it is older)."""

    attempt: AttemptRef
    key: bytes
    since: datetime


class EnvelopeHead(NamedTuple):
    """What a new envelope carries beside its payload. ``key`` is the same whenever it is sent again."""

    id: UUID
    attempt: AttemptRef
    seq: int
    key: str
    ts: datetime
    reply_to: UUID | None = None


def open_envelope(direction: Direction, body: bytes, signature: str, sender: Sender, now: datetime) -> Any:
    """Read the typed envelope out of these bytes, if they are what they claim.

    Args:
        direction: of the stream that they came from.
        body: the exact bytes.
        signature: 64 hex digits.
        sender: who may have sent them.
        now: the present moment; nothing is younger.

    Raises:
        EnvelopeRefused: anything else; the message says what does not fit. Nothing is parsed before the signature fits.
    """
    if len(body) > MAX_BODY_BYTES:
        raise EnvelopeRefused(f"{len(body):,} bytes are more than an envelope's {MAX_BODY_BYTES:,}")
    task_run, epoch = sender.attempt
    if not verify(sender.key, task_run, direction, body, signature):
        raise EnvelopeRefused("the signature does not fit this task run, direction and attempt")
    envelope = _parse(direction, body)
    if envelope.task_id != task_run or envelope.epoch != epoch:
        raise EnvelopeRefused(f"it names {envelope.task_id}/{envelope.epoch}, and came on the stream of {task_run}/{epoch}")
    if not sender.since - CLOCK_WINDOW <= envelope.ts <= now + CLOCK_WINDOW:
        raise EnvelopeRefused(f"its time {envelope.ts.isoformat()} lies before its attempt began, or in the future")
    return envelope


def _parse(direction: Direction, body: bytes) -> Envelope:
    union = FROM_WORKER if direction == "out" else FROM_BROKER
    try:
        envelope: Envelope = union.validate_python(strict_json.parse(body))
    except strict_json.NotStrict as error:
        raise EnvelopeRefused(f"not strict JSON: {error}") from None
    except ValidationError as error:
        first = problems(error)[0]
        raise EnvelopeRefused(f"not a message of this direction: {first.where}: {first.what}") from None
    return envelope


def make_body(head: EnvelopeHead, payload: Wire) -> tuple[str, bytes]:
    """Make the exact bytes of a new envelope, ready to be signed; returns its type and them.

    Args:
        head: its number, key and so on.
        payload: one of the payloads of ``include.messages.models``.

    Raises:
        EnvelopeRefused: larger than an envelope may be.
    """
    type_ = _TYPES[type(payload)]
    union = FROM_BROKER if type_ in IN_PAYLOADS else FROM_WORKER
    about = {"v": 1, "type": type_, "id": head.id, "taskId": head.attempt.task_run, "epoch": head.attempt.epoch}
    envelope = union.validate_python(
        about | {"replyTo": head.reply_to, "ts": head.ts, "idempotencyKey": head.key, "seq": head.seq, "payload": payload}
    )
    body: bytes = union.dump_json(envelope, by_alias=True)
    if len(body) > MAX_BODY_BYTES:
        raise EnvelopeRefused(f"a {type_} of {len(body):,} bytes is more than an envelope's {MAX_BODY_BYTES:,}")
    return type_, body
