"""The life of the sandboxes of a node: made and started on request, watched, and at the end evidence first, then removal.

Every step can be done again after a kill -9. A lease is ended when its evidence is stored and nothing of its sandbox is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import psycopg

from include import faults
from include.database.unit_of_work import async_transaction
from include.errors import NotFound, SandboxFailed, Unavailable
from include.leases import sandboxes
from include.sandbox import bubblewrap, leftovers, store, workspace
from include.sandbox.engine import Engine
from include.sandbox.maker import Maker
from include.sandbox.models import Evidence, Exit, Handin, LeaseRow
from include.sandbox.relay_link import RelayLink
from include.settings import Settings

_AGAIN_S: Final = 0.5
_Result = TypeVar("_Result")
log = logging.getLogger("warden")


class Attempts:
    """All sandboxes of a node.

    Args:
        engine: what makes them.
        link: passes their sockets to the relay.
        root: folder of their directories.
        quota: whether workspaces are loop images.
    """

    def __init__(self, settings: Settings, engine: Engine, link: RelayLink, root: Path, quota: bool) -> None:
        self._settings, self._engine, self._link, self._root = settings, engine, link, root
        self._maker = Maker(settings, engine, link, root, quota)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._made: dict[str, LeaseRow] = {}  # stands in the engine
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._because: dict[str, str] = {}
        self.ready = False  # reconciled since the start

    # -- asked for by a step -----------------------------------------------------------------------------------------------

    async def create(self, name: str) -> bool:
        """Make the sandbox of a live lease.

        Returns:
            False if it is there already (adopt it).

        Raises:
            NotFound: no live lease of that name.
            SandboxFailed: the engine or a tool could not.
            Unavailable: PostgreSQL or the engine does not answer.
        """
        async with self._locks[name]:
            await self._live(name)
            if name in self._made:
                return False
            await self._make(name)
            return True

    async def start(self, name: str) -> bool:
        """Let the sandbox of a live lease run; it is made first if need be.

        Returns:
            False if it runs already.
        """
        async with self._locks[name]:
            await self._live(name)
            if name in self._watchers:
                await self._note_started(self._made[name])
                return False
            if name not in self._made:
                await self._make(name)
            faults.point("warden.start.before")
            await self._engine.start(name)
            faults.point("warden.start.after")
            self._watch(name)
            await self._note_started(self._made[name])
            return True

    def state(self, name: str) -> str | None:
        """``created``, ``running``, or None: it is not there."""
        if name not in self._made:
            return None
        return "running" if name in self._watchers else "created"

    async def logs(self, name: str) -> bytes:
        """Read what a live sandbox has written."""
        return await self._engine.logs(name) if name in self._made else b""

    async def _live(self, name: str) -> LeaseRow:
        async with async_transaction("warden") as connection:
            lease = await store.find(connection, self._settings, name)
        if lease is None or not lease.live:
            raise NotFound(
                f"There is no live lease for {name} on node {self._settings.node}: it was never granted, was revoked, or has ended."
            )
        return lease

    async def _note_started(self, lease: LeaseRow) -> None:
        async with async_transaction("warden") as connection:
            await sandboxes.started(connection, lease.id)

    # -- made --------------------------------------------------------------------------------------------------------------

    async def _make(self, name: str) -> None:
        lease = await self._live(name)
        await self._maker.make(lease)
        self._made[name] = lease

    # -- watched and ended -------------------------------------------------------------------------------------------------

    def _watch(self, name: str) -> None:
        self._watchers[name] = asyncio.create_task(self._until_its_end(name))

    async def _until_its_end(self, name: str) -> None:
        exit_ = await _insist(lambda: self._engine.wait(name))
        async with self._locks[name]:
            await self._end(self._made[name], exit_)

    async def end_what_is_over(self, lease: LeaseRow, because: str) -> None:
        """Kill a sandbox that is over, or end a lease whose sandbox never stood. Its watcher stores the rest."""
        name = lease.sandbox
        self._because.setdefault(name, because)
        if name in self._watchers:
            await self._engine.kill(name)
            return
        async with self._locks[name]:
            if name in self._watchers:  # it was started while we waited
                await self._engine.kill(name)
            else:
                await self._end(lease, Exit(None))

    async def _end(self, lease: LeaseRow, exit_: Exit) -> None:
        """Store the evidence, then remove the sandbox, then end the lease; each is tried until it is done."""
        name, folder = lease.sandbox, self._root / lease.sandbox
        written = await _insist(lambda: self._engine.logs(name)) or await asyncio.to_thread(bubblewrap.read_log, folder)
        handin = await asyncio.to_thread(_take, folder, self._settings.handins_dir, lease)
        evidence = Evidence(exit_, written, handin, self._because.get(name, ""))
        await _insist(lambda: self._store(lease, evidence))
        faults.point("warden.evidence.after-commit")
        self._link.close(name)
        await _insist(lambda: self._engine.remove(name))
        await _insist(lambda: asyncio.to_thread(workspace.remove, folder))
        await _insist(lambda: self._ended(lease))
        for register in (self._made, self._watchers, self._because):
            register.pop(name, None)
        log.info("%s ended: exit %s, %s", name, exit_.code, evidence.because or "by itself")

    async def _store(self, lease: LeaseRow, evidence: Evidence) -> None:
        async with async_transaction("warden") as connection:
            await store.store_evidence(connection, lease.id, evidence)
            faults.point("warden.evidence.before-commit")

    async def _ended(self, lease: LeaseRow) -> None:
        async with async_transaction("warden") as connection:
            await sandboxes.ended(connection, lease.id)
            faults.point("warden.end.before-commit")

    # -- after a restart ---------------------------------------------------------------------------------------------------

    async def reconcile(self) -> None:
        """Bring what is there in line with the leases: adopt what runs, end what is lost, remove what nobody owns."""
        async with async_transaction("warden") as connection:
            leases = {lease.sandbox: lease for lease in await store.unended(connection, self._settings)}
        there = await self._engine.own()
        for name in sorted({*there, *self._directories(), *leases}):
            async with self._locks[name]:
                await self._settle(name, leases.get(name), there.get(name))
        await self._maker.sweep(set(), toolboxes_too=not self._made)

    async def reap(self) -> None:
        """End whatever no live lease owns, beside what is being made and ended right now."""
        there = await self._engine.own()
        async with async_transaction("warden") as connection:
            if forgotten := await sandboxes.forget_keys_of_ended(connection, self._settings.node):
                log.info("deleted the keys of %d ended attempts", forgotten)
            leases = {lease.sandbox: lease for lease in await store.unended(connection, self._settings)}
        for name in sorted({*there, *self._directories(), *self._made} - set(leases)):
            await self._reap_one(name)
        await self._maker.sweep({str(lease.id) for lease in leases.values()}, toolboxes_too=False)

    async def _reap_one(self, name: str) -> None:
        async with self._locks[name]:
            async with async_transaction("warden") as connection:  # asked again: it may have been granted since
                if await store.find(connection, self._settings, name) is not None:
                    return
            if name not in self._made:
                await self._clean(name)
                return
            known = self._made[name]
        await self.end_what_is_over(known, "its lease has ended")

    def _directories(self) -> set[str]:
        mounted = {point.relative_to(self._root).parts[0] for point in workspace.mounts_under(self._root) if point != self._root}
        return {name for name in {*mounted, *(path.name for path in self._root.iterdir())} if not name.startswith(".")}

    async def _settle(self, name: str, lease: LeaseRow | None, state: str | None) -> None:
        if name in self._made:
            return
        folder = self._root / name
        if lease is None:
            await self._clean(name)
        elif state in ("running", "ended"):
            self._adopt(name, lease, folder)
        elif lease.started or await asyncio.to_thread(workspace.was_started, folder):
            self._because.setdefault(name, "lost: the sandbox died with the warden or the engine")
            await self._end(lease, Exit(None))
        else:
            await self._clean(name)  # never started: made afresh when a step asks again

    def _adopt(self, name: str, lease: LeaseRow, folder: Path) -> None:
        if lease.kind == "work" and (folder / "task").is_dir():
            self._link.open(name, str(lease.task_run), folder / "task")
        self._made[name] = lease
        self._watch(name)

    async def _clean(self, name: str) -> None:
        if (self._root / name).exists():
            log.info("%s belongs to no live lease, or never started: removed", name)
        self._link.close(name)
        await self._engine.remove(name)
        await asyncio.to_thread(leftovers.end_processes, self._root, name)
        await asyncio.to_thread(workspace.remove, self._root / name)


def _take(folder: Path, handins: Path, lease: LeaseRow) -> Handin:
    try:
        return workspace.take_handin(folder, handins, lease.id)
    except OSError as error:  # a broken file system of the sandbox's making must not keep it alive
        return Handin(refused=f"the hand-in cannot be read ({error.strerror})")


async def _insist(do: Callable[[], Awaitable[_Result]]) -> _Result:
    """Do it, and again until PostgreSQL, the engine and the machine let it be done."""
    while True:
        try:
            return await do()
        except (Unavailable, SandboxFailed, psycopg.Error, OSError) as error:
            log.warning("trying again: %s", error)
            await asyncio.sleep(_AGAIN_S)
