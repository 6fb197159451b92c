"""One watch of the database for all lease steps of a triggerer: one connection, one question a tick, one stamp a second.

A trigger subscribes its task run and waits to be called; it is called when something that it judges by has changed. Only for those that
live here, the lease is stamped as watched. The state is kept by event loop and process, so that a fork or a test's new loop starts afresh.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from psycopg.rows import dict_row

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import AsyncConnection
from include.leases import stamps
from include.leases.service import WARDEN_PATIENCE_S
from include.settings import Settings, settings

TICK_S: Final = 0.5
STAMP_S: Final = 1.0
CALM_DOWN_S: Final = 0.1
"""Between two questions, however many notifications come."""
AGAIN_S: Final = 0.5
FOR_EVER_S: Final = 10 * 365 * 86400.0
ANYWAY_S: Final = 60.0
"""A trigger that nobody called for so long looks for itself: no fault of this watch may leave an attempt without an end."""
LOOKS_AT_ONCE: Final = 4
CHANNELS: Final = ("airlock_state", "leases", "evidence")
_SQL = load(__file__)
_Result = TypeVar("_Result")
log = logging.getLogger("airlock.watch")


class _Changed(NamedTuple):
    """One watched task run at which something is not as it was: its place among those asked about, and what is there now."""

    number: int
    print: str


class Watched:
    """One task run that a trigger of this process watches.

    Args:
        dag_id: of the goal.
        run_id: Airflow's.
        key: of the plan's task.
        ti_id: the lease step's task-instance id.
    """

    def __init__(self, watch: Watch, dag_id: str, run_id: str, key: str, ti_id: str) -> None:
        self.watch, self.subject = watch, (dag_id, run_id, key, ti_id)
        self.print: str | None = None  # what was there when it was called last; None: call it
        self._called = asyncio.Event()

    async def changed(self) -> None:
        """Wait until there is something to look at; at first there always is. After ``ANYWAY_S`` without a call a look does no harm."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANYWAY_S):  # not ``wait_for``: see ``include.broker.process.wait``
                await self._called.wait()
        self._called.clear()

    def call(self, print_: str) -> None:
        """Something is not as it was."""
        self.print = print_
        self._called.set()

    def again(self) -> None:
        """The look failed: be called once more."""
        self.print = None

    async def look(self, do: Callable[[], _Result]) -> _Result:
        """Do a look in one of the few threads of this watch."""
        return await asyncio.get_running_loop().run_in_executor(self.watch.threads, do)


class Watch:
    """All task runs that triggers of one event loop watch."""

    def __init__(self, mine: Settings) -> None:
        self.pid = os.getpid()
        self.threads = ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="look")
        self.ticks = 0
        self._settings = mine
        self._all: set[Watched] = set()
        self._busy = asyncio.Lock()  # held while a statement that may stamp is under way
        self._stamped_at = 0.0
        self._running: asyncio.Task[None] | None = None
        self._calm_until = 0.0

    @property
    def calm_s(self) -> float:
        """Seconds after PostgreSQL starts during which no lease expires; unlimited while we still recover from an outage that we saw."""
        calm = asyncio.get_running_loop().time() < self._calm_until
        return FOR_EVER_S if calm else self._settings.calm_s

    @contextlib.contextmanager
    def of(self, dag_id: str, run_id: str, key: str, ti_id: str) -> Any:
        """Watch a task run for as long as the block lasts."""
        watched = Watched(self, dag_id, run_id, key, ti_id)
        self._all.add(watched)
        if self._running is None or self._running.done():  # without the context of the trigger that came first: its log is not ours
            self._running = asyncio.create_task(self._run(), context=contextvars.Context())
        try:
            yield watched
        finally:
            self._all.discard(watched)
            if not self._all and self._running is not None:
                self._running.cancel()
                self._running = None  # it is not done yet; whoever comes before it is must not take it for one that watches

    async def left_at(self) -> datetime:
        """Wait until our pending stamps are written, then return PostgreSQL's time."""
        async with self._busy:
            pass
        async with await self._connect() as connection:
            now: datetime = await rows.ascalar(connection, _SQL.now)
            return now

    async def _run(self) -> None:
        """Ask for ever; an outage is waited out, and changes nothing of what is watched."""
        while True:
            try:
                async with await self._connect() as connection:
                    for channel in CHANNELS:
                        await connection.execute(f"LISTEN {channel}")
                    while True:
                        await self._tick(connection)
            except (psycopg.Error, OSError) as error:
                log.warning("PostgreSQL does not answer (%s). Still watching %d.", str(error).strip().partition("\n")[0], len(self._all))
                self._calm_until = asyncio.get_running_loop().time() + self._settings.calm_s
            except Exception:
                log.exception("The watch stumbled; it goes on.")
            await asyncio.sleep(AGAIN_S)

    async def _connect(self) -> AsyncConnection:
        return await psycopg.AsyncConnection.connect(
            self._settings.dsn("airflow"), row_factory=dict_row, autocommit=True, connect_timeout=5, keepalives_idle=5
        )

    async def _tick(self, connection: AsyncConnection) -> None:
        now = asyncio.get_running_loop().time()
        async with self._busy:
            everyone = list(self._all)
            if now - self._stamped_at >= STAMP_S - TICK_S / 2:
                await stamps.stamp(connection, _columns(everyone))
                self._stamped_at = now
            prints = [watched.print for watched in everyone]
            terms = {"calm": self.calm_s, "silence": self._settings.silence_s, "patience": WARDEN_PATIENCE_S}
            values = {**_columns(everyone), **terms, "prints": prints}
            changed = await rows.aevery(connection, _Changed, _SQL.changed, **values)
        for each in changed:
            everyone[each.number - 1].call(each.print)
        self.ticks += 1
        await asyncio.sleep(CALM_DOWN_S)
        async for _ in connection.notifies(timeout=TICK_S - CALM_DOWN_S, stop_after=1):
            pass


def _columns(everyone: list[Watched]) -> dict[str, list[str]]:
    columns = zip(*(watched.subject for watched in everyone), strict=True) if everyone else ([], [], [], [])
    return dict(zip(("dag_ids", "run_ids", "keys", "ti_ids"), map(list, columns), strict=True))


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()


def here() -> Watch:
    """The watch of the running event loop in this process."""
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None or watch.pid != os.getpid():
        watch = _watches[loop] = Watch(settings())
    return watch
