"""Count what sandboxes left on this machine that no unended lease owns: after a clean stop every number is 0."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

from include.database.unit_of_work import transaction
from include.errors import Unavailable
from include.sandbox import folders, profile, store, workspace
from include.sandbox.models import CONTAINERS
from include.settings import Settings


def leftovers(settings: Settings) -> dict[str, int]:
    """Containers, processes, mounts, sockets and directories of this home's sandboxes without an unended lease.

    With PostgreSQL away no lease is known, and so everything counts.
    """
    root, owned = folders.root(settings), _owned()
    attempts = [path for path in root.iterdir() if not path.name.startswith(".")] if root.is_dir() else []
    strays = [path for path in attempts if path.name not in owned]
    return {
        "containers": len([name for name in _containers(settings) if name not in owned]),
        "processes": sum(len(pids) for name, pids in processes(root).items() if name not in owned),
        "mounts": len([point for point in workspace.mounts_under(root) if point.relative_to(root).parts[0] not in owned]),
        "sockets": len([path for path in strays if (path / "task" / "relay.sock").exists()]),
        "directories": len(strays) + len(list(settings.handins_dir.glob("*.part"))),
    }


def _owned() -> set[str]:
    try:
        with transaction("cli") as connection:
            return store.live_sandboxes(connection)
    except Unavailable:
        return set()


def _containers(settings: Settings) -> list[str]:
    import httpx  # half a second of every command, for one that asks

    transport = httpx.HTTPTransport(uds=settings.docker_host.removeprefix("unix://"))
    filters = json.dumps({"label": [f"{profile.OWNER_LABEL}={folders.owner(settings)}"]})
    try:
        with httpx.Client(transport=transport, base_url="http://docker/v1.41", timeout=10) as docker:
            rows = CONTAINERS.validate_json(docker.get("/containers/json", params={"all": "true", "filters": filters}).content)
    except (httpx.HTTPError, ValueError):  # no engine: no containers
        return []
    return [row.name for row in rows]


def end_processes(root: Path, name: str) -> None:
    """Kill what still sees the directory of this attempt, which nobody owns."""
    for process in processes(root).get(name, []):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def processes(root: Path) -> dict[str, list[int]]:
    """Find the processes that see an attempt's directory below ``root`` as /run/task, by the attempt's name."""
    found = dict[str, list[int]]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (name := _attempt_of(entry, root)):
            found.setdefault(name, []).append(int(entry.name))
    return found


def _attempt_of(process: Path, root: Path) -> str | None:
    try:
        lines = (process / "mountinfo").read_text().splitlines()
    except OSError:  # it has ended, or is not ours to see
        return None
    for line in lines:
        source, target = line.split()[3:5]
        path = Path(source)
        if target == "/run/task" and path.name == "task" and len(path.parts) > 2 and path.parent.parent.name == root.name:
            return path.parent.name if str(root).endswith(str(path.parent.parent)) else None
    return None
