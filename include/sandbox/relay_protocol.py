"""What goes over the relay's two kinds of sockets: frames of a worker, which are never read, and words of the warden.

A frame is ``u32`` length of what follows, ``u8`` operation or status, payload; all integers big-endian (docs/architecture.md).
"""

from __future__ import annotations

import json
import struct
from typing import Final, NamedTuple

DONE, REFUSED, LATER = 0, 1, 2
PUT, GET = 1, 2
BODY_BYTES: Final = 256 * 1024
SIGNATURE: Final = 64
HEAD_BYTES: Final = 5
_GET: Final = struct.Struct(">QQH")
_ENTRY: Final = struct.Struct(">QQI")
_HEX: Final = frozenset(b"0123456789abcdef")


# -- a worker's frames -----------------------------------------------------------------------------------------------------


class Head(NamedTuple):
    """The beginning of a request: ``rest`` is how many bytes of payload follow; None: more than its operation may have."""

    operation: int
    rest: int | None


class Put(NamedTuple):
    """A message for the outbox."""

    signature: bytes
    body: bytes


class Get(NamedTuple):
    """A question for the inbox: what came after an entry, and how many milliseconds the worker waits for the first."""

    after: str
    wait_ms: int


def head(read: bytes) -> Head:
    """Read the first ``HEAD_BYTES`` of a request."""
    length, operation = int.from_bytes(read[:4], "big"), read[4]
    largest = 1 + (SIGNATURE + BODY_BYTES if operation == PUT else _GET.size)
    return Head(operation, length - 1 if 1 <= length <= largest else None)


def put(payload: bytes) -> Put | None:
    """Read the payload of a put; None: it is none."""
    signature, body = payload[:SIGNATURE], payload[SIGNATURE:]
    return Put(signature, body) if len(signature) == SIGNATURE and _HEX.issuperset(signature) else None


def get(payload: bytes) -> Get | None:
    """Read the payload of a get; None: it is none."""
    if len(payload) != _GET.size:
        return None
    first, second, wait = _GET.unpack(payload)
    return Get(f"{first}-{second}", wait)


def reply(status: int, payload: bytes = b"") -> bytes:
    """Make the answer to a frame."""
    return struct.pack(">IB", 1 + len(payload), status) + payload


def entry(entry_id: bytes, fields: dict[bytes, bytes]) -> bytes:
    """Make one entry of a get's answer from an entry of a stream."""
    first, second = (int(number) for number in entry_id.split(b"-"))
    body, signature = fields.get(b"e", b""), fields.get(b"s", b"").ljust(SIGNATURE, b"0")[:SIGNATURE]
    return _ENTRY.pack(first, second, len(body)) + signature + body


# -- the warden's words ----------------------------------------------------------------------------------------------------


class Order(NamedTuple):
    """What the warden says to the relay. One that says nothing asks for a sign of life.

    Attributes:
        keep: the sandboxes whose sockets stay; all others are closed.
        close: the sandbox whose socket is closed.
        open: the sandbox whose listening socket comes with this order.
        task_run: whose streams that socket serves.
    """

    keep: list[str] | None = None
    close: str | None = None
    open: str | None = None
    task_run: str = ""

    def to_bytes(self) -> bytes:
        """Make the bytes of one packet on the control socket."""
        return json.dumps({name: value for name, value in self._asdict().items() if value not in (None, "")}).encode()

    @classmethod
    def of(cls, packet: bytes) -> Order:
        """Read one packet of the control socket."""
        return cls(**json.loads(packet))
