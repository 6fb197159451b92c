"""The warden of a node: ``python -m include.sandbox.warden``. Nobody kills but it, and it kills only what PostgreSQL says is over.

It makes and removes the sandboxes, answers the few calls of the Docker Engine API (``api.py``), and says every ten seconds that it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import psycopg
import uvicorn
from psycopg import sql
from psycopg.rows import dict_row

from include.database.unit_of_work import AsyncConnection, async_transaction
from include.errors import AirlockError
from include.fleet import service as fleet
from include.fleet.models import Offer
from include.sandbox import folders, probe, store, workspace
from include.sandbox.api import application
from include.sandbox.attempts import Attempts
from include.sandbox.relay_link import RelayLink
from include.sandbox.sockets import listen
from include.settings import Settings, settings

BEAT_S: Final = 10.0
AGAIN_S: Final = 0.5
_FOR_EVER_S: Final = 10 * 365 * 86400.0
log = logging.getLogger("warden")


class Judge:
    """Kills what is over, when it is over.

    Args:
        attempts: the sandboxes.
    """

    def __init__(self, mine: Settings, attempts: Attempts) -> None:
        self._settings, self._attempts = mine, attempts
        self._ending: dict[str, asyncio.Task[None]] = {}
        self._calm_until = 0.0

    async def run(self) -> None:
        """Judge for ever. While PostgreSQL is away nothing is judged, and after that nothing expires for a calm period."""
        while True:
            try:
                async with _listening(self._settings) as connection:
                    while True:
                        await self._once(connection)
            except (psycopg.Error, OSError) as error:
                log.warning("PostgreSQL does not answer, nothing is judged: %s", str(error).strip())
                self._calm_until = asyncio.get_running_loop().time() + self._settings.calm_s
                await asyncio.sleep(AGAIN_S)

    async def _once(self, connection: AsyncConnection) -> None:
        node, unwatched = self._settings.node, float(self._settings.unwatched_s)
        calm = self._calm_s()
        for over in await store.over(connection, node, calm, unwatched):
            await self._end(connection, over.sandbox, over.because)
        due = await store.due_s(connection, node, calm, unwatched)
        wait = BEAT_S if due is None else min(BEAT_S, max(due, 0.01))
        if self._ending and (due is None or due <= 0):  # what is over is being ended; it stays in the list until it is
            wait = AGAIN_S
        async for _ in connection.notifies(timeout=wait, stop_after=1):
            pass

    def _calm_s(self) -> float:
        """Seconds after a start of PostgreSQL during which nothing expires; for ever while an outage that we saw is not long over."""
        calm = asyncio.get_running_loop().time() < self._calm_until
        return _FOR_EVER_S if calm else self._settings.calm_s

    async def _end(self, connection: AsyncConnection, sandbox: str, because: str) -> None:
        if sandbox in self._ending:
            return
        lease = await store.find(connection, self._settings, sandbox)
        if lease is not None:
            task = asyncio.create_task(self._attempts.end_what_is_over(lease, because))
            self._ending[sandbox] = task
            task.add_done_callback(lambda done: self._ended(sandbox, done))

    def _ended(self, sandbox: str, task: asyncio.Task[None]) -> None:
        self._ending.pop(sandbox, None)
        if not task.cancelled() and (error := task.exception()):
            log.error("%s could not be ended, it is tried again: %s", sandbox, error)


@contextlib.asynccontextmanager
async def _listening(mine: Settings) -> AsyncIterator[AsyncConnection]:
    connection = await psycopg.AsyncConnection.connect(mine.dsn("warden"), row_factory=dict_row, autocommit=True, connect_timeout=5)
    async with connection:
        await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(f"warden_{mine.node}")))
        yield connection


async def _beat(mine: Settings) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        await _until_done(lambda c: fleet.beat(c, mine.node))


async def _pulse(mine: Settings, link: RelayLink) -> None:
    """Pass each sign of life of the relay on to PostgreSQL; without one nothing of this node's work counts as silent."""
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                mine.dsn("warden"), row_factory=dict_row, autocommit=True, connect_timeout=5
            ) as c:
                while True:
                    link.answered.clear()
                    await link.answered.wait()
                    await store.pulse(c, mine)
        except (psycopg.Error, OSError) as error:
            log.warning("PostgreSQL: %s", str(error).strip())
            await asyncio.sleep(AGAIN_S)


async def _reap(attempts: Attempts, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await attempts.reap()
        except (AirlockError, psycopg.Error, OSError) as error:
            log.warning("The reaper tries again: %s", str(error).strip())


async def _until_done(do: Callable[[AsyncConnection], Awaitable[None]]) -> None:
    while True:
        try:
            async with async_transaction("warden") as connection:
                await do(connection)
            return
        except (AirlockError, psycopg.Error, OSError) as error:
            log.warning("PostgreSQL: %s", str(error).strip())
            await asyncio.sleep(AGAIN_S)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


async def run(mine: Settings) -> None:
    """Be the warden of this node until SIGTERM."""
    root = folders.prepare_root(mine)
    quota = await asyncio.to_thread(workspace.quota_works, root)
    engine = await probe.choose(mine, quota)
    log.info("rung: %s. %s", engine.rung, engine.notice or "Nothing is missing.")
    link = RelayLink(mine.run_dir / "relay-control.sock", mine.pulse_s)
    attempts = Attempts(mine, engine, link, root, quota)
    config = uvicorn.Config(application(attempts, mine.image), log_level="warning", access_log=False, lifespan="off")
    server = _Server(config)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, setattr, server, "should_exit", True)
    api = asyncio.create_task(server.serve(sockets=[listen(mine.warden_socket, 0o600, 128)]))
    offer = Offer(name=mine.node, capacity=mine.node_capacity, rung=engine.rung, notice=engine.notice)
    work = asyncio.create_task(_work(mine, attempts, link, offer))
    await asyncio.wait({api, work}, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work  # its error, if it has one, is ours
    await api


async def _work(mine: Settings, attempts: Attempts, link: RelayLink, offer: Offer) -> None:
    await _until_done(lambda _: attempts.reconcile())
    attempts.ready = True
    await _until_done(lambda c: fleet.register(c, offer))
    async with asyncio.TaskGroup() as group:
        for part in (link.run(), Judge(mine, attempts).run(), _beat(mine), _pulse(mine, link), _reap(attempts, mine.reap_s)):
            group.create_task(part)


def main() -> None:
    """Run, unless another warden of this home does."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    mine = settings()
    for folder in (mine.run_dir, mine.handins_dir, mine.bundles_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = (mine.run_dir / "warden.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        asyncio.run(run(mine))
    except BlockingIOError:
        sys.exit(f"Another warden of {mine.home} runs already; see `./airlock status`.")
    except AirlockError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
