"""Which rung this machine offers: container, else bubblewrap, else none, and then the warden says what to install."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx

from include.errors import AirlockError, SandboxFailed
from include.sandbox import bubblewrap, folders
from include.sandbox.bubblewrap import BubblewrapEngine
from include.sandbox.docker import DockerEngine, client
from include.sandbox.engine import Engine
from include.sandbox.models import Mount, Spec
from include.settings import Settings

_NO_TOTALS: Final = "process sandbox: memory is bounded for each process, not in all"
_NO_UIDS: Final = "the warden does not run as root: sandboxes share its user, and processes are counted for all of them together"
_NO_QUOTA: Final = "the workspace has no quota (no loop devices, or not root): only the size of each file is bounded"


async def choose(settings: Settings, quota: bool) -> Engine:
    """Choose the best engine that works here, or the one that the settings ask for.

    Args:
        quota: whether workspaces are bounded; the notice says so if not.

    Raises:
        SandboxFailed: nothing works; the message says why and what to do.
    """
    root, reasons = folders.root(settings), []
    lacks = [] if quota else [_NO_QUOTA]
    if settings.engine in ("auto", "docker"):
        if not (why := await _docker_problem(settings)):
            return DockerEngine(settings.docker_host, settings.image, folders.owner(settings), "; ".join(lacks))
        reasons.append(f"Docker: {why}")
    if settings.engine in ("auto", "bubblewrap"):
        if not (why := await _bubblewrap_problem(root)):
            lacks += [_NO_TOTALS, *([_NO_UIDS] if os.geteuid() != 0 else [])]
            return BubblewrapEngine("; ".join([*lacks, *reasons]))
        reasons.append(f"bubblewrap: {why}")
    if not reasons:
        raise SandboxFailed(f"engine is {settings.engine!r}. Set AIRLOCK_ENGINE to auto, docker or bubblewrap.")
    raise SandboxFailed(f"No sandbox engine works here, and nothing runs unsandboxed. {'. '.join(reasons)}. Mend one, then `./airlock up`.")


async def _docker_problem(settings: Settings) -> str:
    """Why containers cannot be used; empty: they can."""
    async with client(settings.docker_host) as http:
        try:
            if (await http.get("/_ping")).status_code != 200:
                return f"{settings.docker_host} does not answer as an engine"
            if (await http.get(f"/images/{settings.image}/json")).status_code != 200:
                return f"the image {settings.image} is missing (`./airlock images build` makes it)"
        except httpx.HTTPError as error:
            return f"no engine answers at {settings.docker_host} ({error or type(error).__name__})"
    return ""


async def _bubblewrap_problem(root: Path) -> str:
    """Why process sandboxes cannot be used, found by running one; empty: they can."""
    if missing := bubblewrap.usable():
        return missing
    with tempfile.TemporaryDirectory(dir=root, prefix=".probe-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        (folder / "worker.pyz").write_text("print('probe')")
        engine, probe = BubblewrapEngine(), "airlock-probe"
        mounts = (Mount(folder, "/opt/airlock", False), Mount(folder, "/workspace", False))
        try:
            python, extra = await asyncio.to_thread(folders.python_inside, root)
            uid = engine.uid(probe) or os.getuid()
            await engine.create(Spec(probe, UUID(int=0), "probe", folder, (*mounts, *((extra,) if extra else ())), 60, uid, python))
            await engine.start(probe)
            done = await engine.wait(probe)
            return "" if done.code == 0 else f"a trial ended with {done.code}: {(await engine.logs(probe)).decode(errors='replace')[:300]}"
        except (AirlockError, OSError) as error:
            return str(error)
        finally:
            await engine.remove(probe)
