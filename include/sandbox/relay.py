"""The relay of a node: what comes from sandboxes arrives here, and so it holds nothing but a stream credential and listening sockets.

``python -m include.sandbox.relay_start``. The warden passes the sockets over ``home/run/relay-control.sock``, one for each live attempt. On
each a worker can only append to its own outbox and read its own inbox, in length-prefixed frames (docs/architecture.md); the content is
never read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from include import faults, lazy
from include.sandbox.sockets import listen_seqpacket, peer_uid

with lazy.without("opentelemetry"):  # its metrics are not used, and are half of what it loads
    import redis.asyncio as redis
    from redis.exceptions import ConnectionError as StreamsAway
    from redis.exceptions import RedisError

DONE, REFUSED, LATER = 0, 1, 2
PUT, GET = 1, 2
BODY_BYTES: Final = 256 * 1024
SIGNATURE: Final = 64
CONNECTIONS: Final = 2
ACCEPTS_PER_S: Final = 20.0
MESSAGES_PER_S: Final = 200.0
BYTES_PER_S: Final = 1024 * 1024
BURST_BYTES: Final = 512 * 1024
TOTAL_BYTES: Final = 64 * 1024 * 1024
IDLE_S: Final = 60.0
WAIT_MS: Final = 5000
ENTRIES: Final = 16
UNPRIVILEGED_UID: Final = 19999
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
_GET: Final = struct.Struct(">QQH")
_ENTRY: Final = struct.Struct(">QQI")
_HEX: Final = frozenset(b"0123456789abcdef")
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


class Gate:
    """The listening socket of one attempt, with its limits."""

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
        """The attempt is over."""
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
        head = await asyncio.wait_for(reader.readexactly(5), IDLE_S)
        length, operation = int.from_bytes(head[:4], "big"), head[4]
        largest = 1 + (SIGNATURE + BODY_BYTES if operation == PUT else _GET.size)
        if not 1 <= length <= largest:
            await _reply(writer, REFUSED)
            return False
        payload = await asyncio.wait_for(reader.readexactly(length - 1), IDLE_S)
        await asyncio.sleep(max(self._messages.take(1), self._bytes.take(length)))
        return await self._do(operation, payload, writer)

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
        signature, body = payload[:SIGNATURE], payload[SIGNATURE:]
        if len(signature) < SIGNATURE or not _HEX.issuperset(signature) or self._total + len(payload) > TOTAL_BYTES:
            return REFUSED, b""
        self._total += len(payload)
        faults.point("relay.append.before")
        await self._streams.xadd(f"task:{self._task_run}:out", {"e": body, "s": signature})
        faults.point("relay.append.after")
        return DONE, b""

    async def _get(self, payload: bytes) -> tuple[int, bytes]:
        if len(payload) != _GET.size:
            return REFUSED, b""
        first, second, wait = _GET.unpack(payload)
        block = min(wait, WAIT_MS) or None  # to Valkey 0 means for ever
        answer: Any = await self._streams.xread({f"task:{self._task_run}:in": f"{first}-{second}"}, count=ENTRIES, block=block)
        streams = list(answer.values()) if isinstance(answer, dict) else [entries for _, entries in answer or []]
        return DONE, b"".join(_entry(entry_id, fields) for entry_id, fields in _flat(streams))


def _flat(streams: list[Any]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of one stream, in either form that redis-py gives them."""
    entries = streams[0] if streams else []
    return list(entries[0]) if entries and isinstance(entries[0], list) else list(entries)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> bytes:
    first, second = (int(number) for number in entry_id.split(b"-"))
    body, signature = fields.get(b"e", b""), fields.get(b"s", b"").ljust(SIGNATURE, b"0")[:SIGNATURE]
    return _ENTRY.pack(first, second, len(body)) + signature + body


async def _reply(writer: asyncio.StreamWriter, status: int, payload: bytes = b"") -> None:
    writer.write(struct.pack(">IB", 1 + len(payload), status) + payload)
    await asyncio.wait_for(writer.drain(), IDLE_S)


# -- what the warden says --------------------------------------------------------------------------------------------------


class Relay:
    """All gates of a node, opened and closed as the warden says.

    Args:
        streams: client with the relay's stream credential.
        trusted_uid: the only user whose messages count on the control socket.
    """

    def __init__(self, streams: redis.Redis, trusted_uid: int) -> None:
        self._streams, self._trusted = streams, trusted_uid
        self.gates: dict[str, Gate] = {}

    async def serve(self, control: socket.socket) -> None:
        """Take wardens, one after the other; gates stay open when a warden goes."""
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(control)
            with connection:
                if peer_uid(connection) != self._trusted:
                    log.warning("refused a stranger on the control socket (uid %d)", peer_uid(connection))
                    continue
                await self._listen(connection)

    async def _listen(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        while True:
            await _readable(connection)
            try:
                data, descriptors, _, _ = socket.recv_fds(connection, 65536, 4)
            except OSError:
                return
            if not data:
                return
            self._obey(json.loads(data), descriptors)
            with contextlib.suppress(OSError):
                connection.send(b"ok")

    def _obey(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """``keep``: close all gates but these; ``open``: a gate with the passed socket; ``close``: one gate; nothing: a sign of life."""
        if "keep" in message:
            for sandbox in set(self.gates) - set(message["keep"]):
                self.gates.pop(sandbox).close()
        if "close" in message and (gate := self.gates.pop(message["close"], None)):
            gate.close()
        if "open" in message:
            self._open(message["open"], message["task_run"], socket.socket(fileno=descriptors.pop()))
        for stray in descriptors:
            os.close(stray)

    def _open(self, sandbox: str, task_run: str, listener: socket.socket) -> None:
        if gate := self.gates.get(sandbox):
            gate.replace(listener)
        else:
            self.gates[sandbox] = Gate(listener, task_run, self._streams)


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection, _tell, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _tell(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


# -- the process -----------------------------------------------------------------------------------------------------------


def _arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m include.sandbox.relay", description="Relay of this node.")
    parser.add_argument("--control", required=True, help="path of the control socket, which the relay binds")
    parser.add_argument("--valkey", required=True, help="host:port of the stream server")
    parser.add_argument("--password-file", required=True, help="file of mode 0600 with the password of the stream user relay")
    return parser.parse_args(words)


def _leave_root() -> None:
    """As root: go on as a user without any right; all modules are loaded and the control socket is bound by now."""
    if os.geteuid() == 0:
        "localhost".encode("idna")  # loads a codec that could not be read afterwards
        libc, asked = ctypes.CDLL(None), ctypes.c_int()
        libc.prctl(PR_GET_PDEATHSIG, ctypes.byref(asked))
        os.setgroups([])
        os.setresgid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
        os.setresuid(UNPRIVILEGED_UID, UNPRIVILEGED_UID, UNPRIVILEGED_UID)
        libc.prctl(PR_SET_PDEATHSIG, asked.value)  # a change of user clears it


async def _run(streams: redis.Redis, control: socket.socket, trusted_uid: int) -> None:
    relay = asyncio.create_task(Relay(streams, trusted_uid).serve(control))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, relay.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await relay


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    arguments = _arguments(sys.argv[1:])
    host, _, port = arguments.valkey.rpartition(":")
    password = Path(arguments.password_file).read_text().strip()
    control, trusted_uid = listen_seqpacket(Path(arguments.control)), os.geteuid()
    _leave_root()
    pool = redis.BlockingConnectionPool(
        host=host,
        port=int(port),
        username="relay",
        password=password,
        driver_info=None,  # else the library reads its own version from a file that this user may not read
        max_connections=512,
        timeout=5,
        socket_connect_timeout=5,
        socket_timeout=15,
    )
    log.info("listening on %s for the warden", arguments.control)
    asyncio.run(_run(redis.Redis(connection_pool=pool), control, trusted_uid))


if __name__ == "__main__":
    main()
