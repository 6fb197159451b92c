"""The listening sockets of a node's attempts. On each a worker can only append to its own outbox and read its own inbox, within limits.

The content is never read.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from include import faults, lazy
from include.sandbox import relay_protocol as protocol
from include.sandbox.relay_protocol import BODY_BYTES, DONE, GET, LATER, PUT, REFUSED

with lazy.without("opentelemetry"):  # its metrics are not used, and are half of what it loads
    import redis.asyncio as redis
    from redis.exceptions import ConnectionError as StreamsAway
    from redis.exceptions import RedisError

CONNECTIONS: Final = 2
ACCEPTS_PER_S: Final = 20.0
MESSAGES_PER_S: Final = 200.0
BYTES_PER_S: Final = 1024 * 1024
BURST_BYTES: Final = 512 * 1024
TOTAL_BYTES: Final = 64 * 1024 * 1024
IDLE_S: Final = 60.0
WAIT_MS: Final = 5000
ENTRIES: Final = 16
log = logging.getLogger("relay")


class Bucket:
    """A token bucket: ``take`` says how many seconds to wait before going on."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._level = rate, burst, burst
        self._at = asyncio.get_running_loop().time()

    def take(self, amount: float) -> float:
        """Take an amount, in debt if need be."""
        now = asyncio.get_running_loop().time()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate) - amount
        self._at = now
        return max(0.0, -self._level / self._rate)


class Inlet:
    """The listening socket of one attempt, with its limits.

    Args:
        listener: bound by the warden.
        task_run: whose streams it serves.
        streams: client with the relay's stream credential.
    """

    def __init__(self, listener: socket.socket, task_run: str, streams: redis.Redis) -> None:
        listener.setblocking(False)
        self._listener, self._task_run, self._streams = listener, task_run, streams
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._accepts = Bucket(ACCEPTS_PER_S, CONNECTIONS)
        self._messages = Bucket(MESSAGES_PER_S, MESSAGES_PER_S)
        self._bytes = Bucket(BYTES_PER_S, BURST_BYTES)
        self._total = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def replace(self, listener: socket.socket) -> None:
        """Listen on another socket (a new warden bound it); connections that are open go on."""
        self._accepting.cancel()
        self._listener.close()
        listener.setblocking(False)
        self._listener = listener
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Close it and all its connections: the attempt is over."""
        for task in (self._accepting, *self._tasks):
            task.cancel()
        self._listener.close()

    async def _accept(self) -> None:
        """Accept only while there is room, and not too often; the rest waits in the backlog."""
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                await asyncio.sleep(self._accepts.take(1))
                connection, _ = await loop.sock_accept(self._listener)
            except BaseException:
                self._free.release()
                raise
            task = asyncio.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection, limit=BODY_BYTES + 1024)
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, TimeoutError, OSError):
            pass  # it went away, or was silent for too long
        finally:
            self._free.release()
            (writer or connection).close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one frame; False: close the connection."""
        head = protocol.head(await asyncio.wait_for(reader.readexactly(protocol.HEAD_BYTES), IDLE_S))
        if head.rest is None:
            await _reply(writer, REFUSED)
            return False
        payload = await asyncio.wait_for(reader.readexactly(head.rest), IDLE_S)
        await asyncio.sleep(max(self._messages.take(1), self._bytes.take(1 + head.rest)))
        return await self._do(head.operation, payload, writer)

    async def _do(self, operation: int, payload: bytes, writer: asyncio.StreamWriter) -> bool:
        act: Callable[[bytes], Awaitable[tuple[int, bytes]]] | None = {PUT: self._put, GET: self._get}.get(operation)
        if act is None:
            await _reply(writer, REFUSED)
            return False
        try:
            status, answer = await act(payload)
        except (StreamsAway, TimeoutError):
            await asyncio.sleep(0.5)
            status, answer = LATER, b""
        except RedisError as error:
            log.warning("%s: the stream server refused: %s", self._task_run, error)
            status, answer = LATER, b""
        await _reply(writer, status, answer)
        return status != REFUSED

    async def _put(self, payload: bytes) -> tuple[int, bytes]:
        put = protocol.put(payload)
        if put is None or self._total + len(payload) > TOTAL_BYTES:
            return REFUSED, b""
        self._total += len(payload)
        faults.point("relay.append.before")
        await self._streams.xadd(f"task:{self._task_run}:out", {"e": put.body, "s": put.signature})
        faults.point("relay.append.after")
        return DONE, b""

    async def _get(self, payload: bytes) -> tuple[int, bytes]:
        get = protocol.get(payload)
        if get is None:
            return REFUSED, b""
        block = min(get.wait_ms, WAIT_MS) or None  # to Valkey 0 means for ever
        answer: Any = await self._streams.xread({f"task:{self._task_run}:in": get.after}, count=ENTRIES, block=block)
        streams = list(answer.values()) if isinstance(answer, dict) else [entries for _, entries in answer or []]
        return DONE, b"".join(protocol.entry(entry_id, fields) for entry_id, fields in _flat(streams))


def _flat(streams: list[Any]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of one stream, in either form that redis-py gives them."""
    entries = streams[0] if streams else []
    return list(entries[0]) if entries and isinstance(entries[0], list) else list(entries)


async def _reply(writer: asyncio.StreamWriter, status: int, payload: bytes = b"") -> None:
    writer.write(protocol.reply(status, payload))
    await asyncio.wait_for(writer.drain(), IDLE_S)
