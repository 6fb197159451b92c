"""Signatures of envelopes: HMAC-SHA256 over the exact bytes sent, bound to task run and direction."""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import Literal

Direction = Literal["in", "out"]


@lru_cache(maxsize=4096)
def _prefix(task_run: str, direction: Direction) -> bytes:
    return b"AIRLOCKv1" + b"".join(b" %d %b" % (len(part), part) for part in (task_run.encode(), direction.encode()))


def signed_bytes(task_run: str, direction: Direction, body: bytes) -> bytes:
    """Make the bytes that are signed: the prefix, then length and bytes of each part, so that no two triples give the same."""
    return b"%b %d %b" % (_prefix(task_run, direction), len(body), body)


def sign(key: bytes, task_run: str, direction: Direction, body: bytes) -> str:
    """Sign a body.

    Args:
        key: the attempt's key of this direction, 32 bytes.
        task_run: the task run whose stream carries it.
        direction: ``in`` (broker to worker) or ``out``.
        body: the exact bytes of the envelope.

    Returns:
        64 lower-case hex digits.
    """
    return hmac.new(key, signed_bytes(task_run, direction, body), hashlib.sha256).hexdigest()


def tag_fits(key: bytes, message: bytes, tag: bytes) -> bool:
    """Check that ``tag`` is the whole HMAC-SHA256 of ``message``: exactly 32 bytes, compared in constant time."""
    return len(tag) == 32 and hmac.compare_digest(hmac.digest(key, message, "sha256"), tag)


def verify(key: bytes, task_run: str, direction: Direction, body: bytes, signature: str) -> bool:
    """Check that ``signature`` is exactly 64 lower-case hex digits and signs these bytes under this key."""
    try:
        tag = bytes.fromhex(signature)
    except ValueError:
        return False
    return tag.hex() == signature and tag_fits(key, signed_bytes(task_run, direction, body), tag)
