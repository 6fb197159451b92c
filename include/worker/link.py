"""The worker's one way out: frames on the relay's unix socket.

A request is ``u32`` length of what follows, ``u8`` operation, payload; a reply is ``u32`` length, ``u8`` status, payload; all integers
big-endian. Operation 1 (put) carries 64 hex digits of signature and an envelope; the reply is empty. Operation 2 (get) carries the last
seen stream id and how long to wait in milliseconds; the reply is a row of entries. Status 0 is done, 1 refused, 2 later.

Why there is no key of a model here: whatever runs in this sandbox, the model's own words included, was written by somebody else. So the
worker holds nothing worth stealing. It asks the broker for the next turn, and the broker, who owns the transcript and the key, calls the
model. All that lies here are two signing keys that belong to this attempt only and die with it.

The link never gives up by itself: a relay that restarts is met again with backoff, and the same bytes are put again. That may put a
message twice; its number makes the second one nothing. The sandbox's own ``timeout`` is what ends a link that never comes back.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from pathlib import Path
from typing import NamedTuple

from include.worker.errors import LinkRefused

DONE, REFUSED, LATER = 0, 1, 2
PUT, GET = 1, 2
MAX_REPLY_BYTES = 16 * 1024 * 1024
MAX_WAIT_MS = 5000
SLOWEST_RETRY_S = 2.0
_ENTRY = struct.Struct(">QQI")


class StreamId(NamedTuple):
    """A place in the inbox."""

    high: int = 0
    low: int = 0


class InboxEntry(NamedTuple):
    """One message of the inbox, unread."""

    id: StreamId
    signature: bytes
    body: bytes


class RelayConnection:
    """One connection, made when it is needed. Use one for putting and one for getting: a get holds its connection while it waits.

    Args:
        path: the relay's socket.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()

    def put(self, signature: str, body: bytes) -> None:
        """Append one message to the outbox; returns when the relay has taken it.

        Raises:
            LinkRefused: the relay will never take it.
        """
        self._request(PUT, signature.encode("ascii") + body, 30.0)

    def get(self, after: StreamId, wait_ms: int = MAX_WAIT_MS) -> list[InboxEntry]:
        """Messages of the inbox after ``after``, waiting up to ``wait_ms`` for the first.

        Raises:
            LinkRefused: the relay does not let us read.
        """
        reply = self._request(GET, struct.pack(">QQH", *after, wait_ms), wait_ms / 1000 + 10.0)
        return _entries(reply)

    def close(self) -> None:
        """Close the connection; the next call makes a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _request(self, operation: int, payload: bytes, timeout_s: float) -> bytes:
        pause = 0.05
        with self._lock:
            while True:
                try:
                    status, reply = self._exchange(operation, payload, timeout_s)
                except (OSError, struct.error):
                    self.close()
                    status = LATER
                if status == DONE:
                    return reply
                if status == REFUSED:
                    raise LinkRefused(f"the relay refused operation {operation} ({len(payload)} bytes)")
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, SLOWEST_RETRY_S)

    def _exchange(self, operation: int, payload: bytes, timeout_s: float) -> tuple[int, bytes]:
        if self._socket is None:
            fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            fresh.settimeout(timeout_s)
            self._socket = fresh
            fresh.connect(self._path)
        self._socket.settimeout(timeout_s)
        self._socket.sendall(struct.pack(">IB", len(payload) + 1, operation) + payload)
        (length,) = struct.unpack(">I", self._read(4))
        if not 1 <= length <= MAX_REPLY_BYTES:
            raise ConnectionError(f"a reply of {length} bytes")
        reply = self._read(length)
        return reply[0], reply[1:]

    def _read(self, length: int) -> bytes:
        assert self._socket is not None
        parts, left = [], length
        while left:
            part = self._socket.recv(min(left, 1 << 20))
            if not part:
                raise ConnectionError("the relay closed the connection")
            parts.append(part)
            left -= len(part)
        return b"".join(parts)


def _entries(reply: bytes) -> list[InboxEntry]:
    entries, at = [], 0
    while at < len(reply):
        high, low, length = _ENTRY.unpack_from(reply, at)
        start = at + _ENTRY.size
        end = start + 64 + length
        if end > len(reply):
            raise LinkRefused("the relay sent a truncated entry")
        entries.append(InboxEntry(StreamId(high, low), reply[start : start + 64], reply[start + 64 : end]))
        at = end
    return entries
