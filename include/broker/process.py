"""What a broker process holds: its agent, a pool of connections, the streams, the model's endpoint, and its name while it lives."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from include.broker.anthropic import Endpoint
from include.broker.models import AgentModels
from include.clock import new_id
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.messages.streams import Streams
from include.settings import Settings

log = logging.getLogger("airlock.broker")
_SQL = queries.load(__file__)
T = TypeVar("T")


class Wake(NamedTuple):
    """What the loops of a process wait for: each is set when there is something to do."""

    leases: asyncio.Event
    outbox: asyncio.Event
    requests: asyncio.Event
    answers: asyncio.Event
    live: asyncio.Event


class Process:
    """One broker process of one agent. Stateless: what it knows beyond a moment is in PostgreSQL and the streams' pending lists.

    Args:
        agent: its name.
        settings: of this installation.
    """

    def __init__(self, agent: str, settings: Settings) -> None:
        self.agent = agent
        self.settings = settings
        self.owner = f"{agent}/{new_id()}"
        self.streams = Streams(settings.valkey_url("broker"), self.owner)
        self.endpoint = Endpoint(agent, settings)
        self.live: set[str] = set()
        self.alive = asyncio.Event()
        self.wake = Wake(*(asyncio.Event() for _ in Wake._fields))
        check = AsyncConnectionPool.check_connection
        self._pool: AsyncConnectionPool[AsyncConnection] = AsyncConnectionPool(
            settings.dsn("broker"), min_size=1, max_size=8, open=False, kwargs={"row_factory": dict_row}, check=check
        )

    async def open(self) -> None:
        """Open the pool (it connects, and reconnects, by itself)."""
        await self._pool.open()

    async def close(self) -> None:
        """Give everything back."""
        await self.streams.close()
        await self.endpoint.close()
        await self._pool.close()

    async def transact(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run ``work`` in one transaction; again while PostgreSQL is away or broke a deadlock. What it raises itself is raised."""
        pause = 0.1
        while True:
            try:
                async with self._pool.connection() as connection:
                    return await work(connection)
            except (psycopg.OperationalError, PoolTimeout) as error:
                if (getattr(error, "sqlstate", None) or "").startswith("54"):
                    raise  # a limit of PostgreSQL that the same statement meets again
                log.warning("PostgreSQL: %s: %s; again in %.1f s", type(error).__name__, str(error).strip(), pause)
                await asyncio.sleep(pause)
                pause = min(5.0, pause * 2)

    async def listen(self) -> None:
        """Hold this process's name by a lock and turn notifications into wake-ups, for ever; under a new name after a lost connection."""
        channels = {"leases": self.wake.leases, f"outbox_{self.agent}": self.wake.outbox, f"broker_{self.agent}": self.wake.requests}
        while True:
            try:
                dsn = self.settings.dsn("broker")
                async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, connect_timeout=5) as connection:
                    await connection.execute(_SQL.hold_owner, {"owner": self.owner})
                    for channel in channels:
                        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
                    for event in self.wake:
                        event.set()
                    self.alive.set()
                    async for notification in connection.notifies():
                        channels[notification.channel].set()
            except psycopg.OperationalError as error:
                log.warning("PostgreSQL: %s; listening again in 1 s", str(error).strip())
            self.alive.clear()
            # Others may have taken us for dead meanwhile and settled our calls: what we do from now on has another owner.
            self.owner = f"{self.agent}/{new_id()}"
            await asyncio.sleep(1)

    async def models(self, connection: AsyncConnection) -> AgentModels:
        """Read which models this agent uses, as they are now."""
        models = await rows.amaybe(connection, AgentModels, _SQL.agent, agent=self.agent)
        if models is None:
            raise LookupError(f"there is no agent {self.agent!r} in the database; run `./airlock up` (it makes the default ones)")
        return models


async def wait(event: asyncio.Event, seconds: float) -> None:
    """Wait until an event is set, at most so long.

    Not by ``asyncio.wait_for``: until Python 3.12 it swallows a cancellation that comes in the moment in which the event is set, and a
    broker that is asked to stop in that moment would go on for ever.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
