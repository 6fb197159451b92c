"""Makes the sandbox of a lease: its directory, its socket, and what the engine runs; and sweeps what a making that was cut off has left."""

from __future__ import annotations

import asyncio
from pathlib import Path

from include.database.unit_of_work import async_transaction
from include.errors import SandboxFailed
from include.sandbox import folders, store, workspace
from include.sandbox.engine import Engine
from include.sandbox.models import LeaseRow, Mount, Spec
from include.sandbox.relay_link import RelayLink
from include.settings import Settings


class Maker:
    """Makes the sandboxes of a node. Its arguments are those of ``Attempts``."""

    def __init__(self, settings: Settings, engine: Engine, link: RelayLink, root: Path, quota: bool) -> None:
        self._settings, self._engine, self._link, self._root, self._quota = settings, engine, link, root, quota
        self._copying = asyncio.Lock()  # held while a copy for all sandboxes may be in the making
        self._python, self._python_mount = folders.python_inside(root) if engine.rung == "bubblewrap" else ("python3", None)

    async def make(self, lease: LeaseRow) -> None:
        """Make the sandbox of a live lease; what an earlier try has left of it is removed first.

        Raises:
            SandboxFailed: the attempt's keys are gone, or the engine or a tool could not.
            Unavailable: PostgreSQL or the engine does not answer.
        """
        name = lease.sandbox
        async with async_transaction("warden") as connection:
            keys = await store.keys(connection, lease.id) if lease.kind == "work" else None
        if lease.kind == "work" and keys is None:
            raise SandboxFailed(f"The keys of {name} are gone: the attempt has ended. Ask for a new one.")
        await self._engine.remove(name)  # of a try that was cut off
        folder, uid = self._root / name, self._engine.uid(name)
        async with self._copying:
            toolbox = await asyncio.to_thread(folders.toolbox, self._settings, self._root)
        await asyncio.to_thread(workspace.make, folder, lease, keys, self._settings.bundles_dir, uid, self._quota)
        if lease.kind == "work":
            self._link.open(name, str(lease.task_run), folder / "task")
        await self._engine.create(self._spec(lease, folder, toolbox, uid))

    def _spec(self, lease: LeaseRow, folder: Path, toolbox: Path, uid: int | None) -> Spec:
        mounts = [
            Mount(toolbox, "/opt/airlock", False),
            Mount(folder / "task", "/run/task", False),
            Mount(folder / "workspace", "/workspace", True),
        ]
        if lease.kind == "work":
            mounts.append(Mount(folder / "secret", "/run/secret", True))
        if self._python_mount:
            mounts.append(self._python_mount)
        own = uid if uid is not None else folder.stat().st_uid
        return Spec(lease.sandbox, lease.id, lease.kind, folder, tuple(mounts), lease.seconds_at_most, own, self._python)

    async def sweep(self, in_the_making: set[str], *, toolboxes_too: bool) -> None:
        """Delete half-made copies.

        Args:
            in_the_making: ids of leases whose hand-in may be being copied just now; those are left alone.
            toolboxes_too: no sandbox runs that may have one mounted: delete all but the newest.
        """
        async with self._copying:
            await asyncio.to_thread(self._sweep, in_the_making, toolboxes_too)

    def _sweep(self, in_the_making: set[str], toolboxes_too: bool) -> None:
        toolboxes = sorted(self._root.glob(".toolbox-*"), key=lambda path: path.stat().st_mtime) if toolboxes_too else []
        for path in (*self._root.glob(".*.part-*"), *self._root.glob(".probe-*"), *toolboxes[:-1]):
            workspace.remove(path)
        for part in self._settings.handins_dir.glob("*.part"):
            if part.stem not in in_the_making:
                part.unlink(missing_ok=True)
