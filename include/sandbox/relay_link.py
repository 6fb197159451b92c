"""The warden's end of the relay: it binds the sockets, keeps the descriptors, and passes them on, again to each new relay.

While nothing is to be said it asks for a sign of life; each answer of the relay within 2 s is one.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Final, NamedTuple

from include.sandbox.relay_protocol import Order
from include.sandbox.sockets import connect_seqpacket, listen

BACKLOG: Final = 8
_AGAIN_S: Final = 0.2
_ANSWER_S: Final = 2.0


class _Listener(NamedTuple):
    task_run: str
    socket: socket.socket


class RelayLink:
    """Holds one listening socket a live work attempt.

    Args:
        control: path of the relay's control socket.
        ping_s: how long the line may be quiet before the relay is asked for a sign of life.
    """

    def __init__(self, control: Path, ping_s: float) -> None:
        self._control, self._ping_s = control, ping_s
        self.answered = asyncio.Event()
        """Set at each answer of the relay; whoever waits for it clears it."""
        self._listeners: dict[str, _Listener] = {}
        self._connection: socket.socket | None = None
        self._news: asyncio.Queue[str] = asyncio.Queue()

    def open(self, sandbox: str, task_run: str, folder: Path) -> None:
        """Bind ``folder/relay.sock`` and have the relay serve it; a worker that connects early waits in the backlog."""
        self._drop(sandbox)
        self._listeners[sandbox] = _Listener(task_run, listen(folder / "relay.sock", 0o666, BACKLOG))
        self._news.put_nowait(sandbox)

    def close(self, sandbox: str) -> None:
        """Close the socket of a sandbox, also at the relay: the attempt is over."""
        if self._drop(sandbox):
            self._news.put_nowait(sandbox)

    def _drop(self, sandbox: str) -> bool:
        known = self._listeners.pop(sandbox, None)
        if known:
            known.socket.close()
        return known is not None

    async def run(self) -> None:
        """Keep a relay told, for ever."""
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                await self._tell_a_relay()
            await asyncio.sleep(_AGAIN_S)

    async def _tell_a_relay(self) -> None:
        connection = connect_seqpacket(self._control)
        with connection:
            await self._say(connection, Order(keep=list(self._listeners)))
            for sandbox in list(self._listeners):
                await self._pass(connection, sandbox)
            while True:
                news = await self._next(connection)
                await (self._pass(connection, news) if news else self._say(connection, Order()))

    async def _next(self, connection: socket.socket) -> str | None:
        """Wait for the next sandbox with news; None: it is time for a sign of life. Raises ConnectionError when the relay is gone."""
        news = asyncio.create_task(self._news.get())
        gone = asyncio.create_task(asyncio.get_running_loop().sock_recv(connection, 16))  # unasked, it only ever says goodbye
        try:
            done, _ = await asyncio.wait({news, gone}, timeout=self._ping_s, return_when=asyncio.FIRST_COMPLETED)
            if news in done:
                return news.result()
            if not done:
                return None
            raise ConnectionError("the relay is gone")
        finally:
            for task in (news, gone):
                task.cancel()
            await asyncio.gather(news, gone, return_exceptions=True)

    async def _pass(self, connection: socket.socket, sandbox: str) -> None:
        known = self._listeners.get(sandbox)
        if known is None:
            await self._say(connection, Order(close=sandbox))
        else:
            await self._say(connection, Order(open=sandbox, task_run=known.task_run), known.socket.fileno())

    async def _say(self, connection: socket.socket, order: Order, descriptor: int | None = None) -> None:
        socket.send_fds(connection, [order.to_bytes()], [] if descriptor is None else [descriptor])
        answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(connection, 16), _ANSWER_S)
        if answer != b"ok":
            raise ConnectionError("the relay is gone")
        self.answered.set()
