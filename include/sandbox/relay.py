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
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from include import lazy
from include.sandbox.relay_inlets import Inlet
from include.sandbox.relay_protocol import Order
from include.sandbox.sockets import listen_seqpacket, peer_uid

with lazy.without("opentelemetry"):  # its metrics are not used, and are half of what it loads
    import redis.asyncio as redis

UNPRIVILEGED_UID: Final = 19999
PR_SET_PDEATHSIG, PR_GET_PDEATHSIG = 1, 2
log = logging.getLogger("relay")


class Relay:
    """All inlets of a node, opened and closed as the warden says.

    Args:
        streams: client with the relay's stream credential.
        trusted_uid: the only user whose messages count on the control socket.
    """

    def __init__(self, streams: redis.Redis, trusted_uid: int) -> None:
        self._streams, self._trusted = streams, trusted_uid
        self.inlets: dict[str, Inlet] = {}

    async def serve(self, control: socket.socket) -> None:
        """Take wardens, one after the other; inlets stay open when a warden goes."""
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
            self._obey(Order.of(data), descriptors)
            with contextlib.suppress(OSError):
                connection.send(b"ok")

    def _obey(self, order: Order, descriptors: list[int]) -> None:
        if order.keep is not None:
            for sandbox in set(self.inlets) - set(order.keep):
                self.inlets.pop(sandbox).close()
        if order.close is not None and (inlet := self.inlets.pop(order.close, None)):
            inlet.close()
        if order.open is not None:
            self._open(order.open, order.task_run, socket.socket(fileno=descriptors.pop()))
        for stray in descriptors:
            os.close(stray)

    def _open(self, sandbox: str, task_run: str, listener: socket.socket) -> None:
        if inlet := self.inlets.get(sandbox):
            inlet.replace(listener)
        else:
            self.inlets[sandbox] = Inlet(listener, task_run, self._streams)


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
