"""Envelopes: built, signed and checked byte for byte (docs/architecture.md, "Signature").

A body is signed as it is sent and checked before it is parsed. Each envelope is built once: a re-send is the same bytes, so its
number and idempotency key never change.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from include.worker import strict_json
from include.worker.errors import BadMessage

MAX_BODY_BYTES = 256 * 1024
FROM_BROKER = frozenset(
    {"task.assign", "task.cancel", "llm.response", "answer", "permission.grant", "permission.deny", "capability.lease", "receipt"}
)
_FIELDS = {"v", "id", "taskId", "epoch", "type", "replyTo", "ts", "idempotencyKey", "seq", "payload"}


class Keys(NamedTuple):
    """Who this attempt is, and its two keys."""

    task_run: str
    epoch: int
    in_key: bytes
    out_key: bytes


class Sent(NamedTuple):
    """An envelope as it goes over the wire."""

    id: str
    type: str
    seq: int
    body: bytes
    signature: str


class Received(NamedTuple):
    """An envelope from the broker that was found genuine."""

    type: str
    seq: int
    reply_to: str | None
    payload: dict[str, Any]


def take_keys(path: Path) -> Keys:
    """Read the one-shot key file and remove it, so that no tool or test ever finds it.

    Raises:
        OSError: the file cannot be read or removed.
        BadMessage: it is not what the warden writes.
    """
    content = path.read_bytes()
    path.unlink()
    try:
        match strict_json.loads(content):
            case {"taskRun": str(task_run), "epoch": int(epoch), "inKey": str(in_key), "outKey": str(out_key)}:
                return Keys(task_run, epoch, bytes.fromhex(in_key), bytes.fromhex(out_key))
    except ValueError as error:
        raise BadMessage(f"{path} is not a key file: {type(error).__name__}") from None
    raise BadMessage(f"{path} is not a key file: something is missing in it")


def signature(key: bytes, task_run: str, direction: str, body: bytes) -> str:
    """Compute the HMAC-SHA256 over prefix, task run, direction and body, each with its length; lower-case hex."""
    parts = [task_run.encode("ascii"), direction.encode("ascii"), body]
    signed = b"AIRLOCKv1" + b"".join(b" %d %s" % (len(part), part) for part in parts)
    return hmac.new(key, signed, hashlib.sha256).hexdigest()


def genuine(key: bytes, task_run: str, direction: str, body: bytes, tag: bytes) -> bool:
    """Say whether ``tag`` is exactly the 64 hex digits of this body's signature; compared in constant time."""
    return len(tag) == 64 and hmac.compare_digest(signature(key, task_run, direction, body).encode("ascii"), tag)


def seal_envelope(keys: Keys, seq: int, type_: str, payload: dict[str, Any], reply_to: str | None = None) -> Sent:
    """Build and sign the worker's envelope with number ``seq``.

    Raises:
        ValueError: it is larger than 256 KiB, or holds NaN.
    """
    id_ = uuid7()
    envelope = {
        "v": 1,
        "id": id_,
        "taskId": keys.task_run,
        "epoch": keys.epoch,
        "type": type_,
        "replyTo": reply_to,
        "ts": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "idempotencyKey": f"{keys.task_run}/{keys.epoch}/{type_}/{seq}",
        "seq": seq,
        "payload": strict_json.storable(payload),
    }
    body = strict_json.dumps(envelope)
    if len(body) > MAX_BODY_BYTES:
        raise ValueError(f"{type_} has {len(body)} bytes; at most {MAX_BODY_BYTES} may be sent")
    return Sent(id_, type_, seq, body, signature(keys.out_key, keys.task_run, "out", body))


def open_envelope(keys: Keys, body: bytes, tag: bytes) -> Received:
    """Check the broker's signature, then parse, then check that it is for this attempt.

    Raises:
        BadMessage: any of these does not hold.
    """
    if not genuine(keys.in_key, keys.task_run, "in", body, tag):
        raise BadMessage("the signature is not the broker's")
    try:
        envelope = strict_json.loads(body)
    except ValueError as error:
        raise BadMessage(f"not strict JSON: {error}") from None
    match envelope:
        case {"v": 1, "taskId": task_run, "epoch": epoch, "type": type_, "seq": seq, "replyTo": reply_to, "payload": payload} if (
            set(envelope) == _FIELDS
        ):
            if (task_run, epoch) != (keys.task_run, keys.epoch):
                raise BadMessage("for another attempt")
            return _received(type_, seq, reply_to, payload)
    raise BadMessage("not an envelope of version 1")


def _received(type_: object, seq: object, reply_to: object, payload: object) -> Received:
    if not isinstance(type_, str) or type_ not in FROM_BROKER:
        raise BadMessage(f"{str(type_)[:60]!r} is no message of a broker")
    if type(seq) is not int or seq < 1 or not isinstance(payload, dict) or not isinstance(reply_to, str | None):
        raise BadMessage(f"{type_}: seq, replyTo or payload has the wrong type")
    return Received(type_, seq, reply_to, payload)


def uuid7() -> str:
    """Make a UUID version 7 (RFC 9562): milliseconds since 1970, then random bits."""
    stamp = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    value = (stamp << 80) | (0x7 << 76) | ((tail >> 68) << 64) | (0b10 << 62) | (tail & ((1 << 62) - 1))
    return str(uuid.UUID(int=value))
