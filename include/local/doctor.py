"""What was left behind: containers, processes, mounts, sockets, streams, leases and locks; and the removal of a home."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import httpx
import redis

from include.database.unit_of_work import transaction
from include.errors import Unavailable
from include.local import checks, control, store
from include.local import leftovers as processes
from include.sandbox import folders
from include.settings import Settings

KINDS = ("containers", "processes", "mounts", "sockets", "streams", "leases", "locks")


def leftovers(settings: Settings) -> dict[str, list[str]]:
    """What is there although nothing needs it. A goal that is at work needs its own things; they are not counted.

    Returns:
        Names per kind, in the order of ``KINDS``.
    """
    is_up = control.supervisor_pid(settings.home) is not None
    known: store.Row = _from_database() if is_up else {"leases": 0, "locks": 0, "sandboxes": set(), "task_runs": set()}
    live = set(known["sandboxes"])
    found = {
        "containers": [name for name in containers(settings) if name not in live],
        "processes": [] if is_up else [f"pid {pid}" for pid in processes.find(settings.home)],
        "mounts": [path for path in mounts(settings) if Path(path).name not in live and Path(path).parent.name not in live],
        "sockets": [str(path) for path in sockets(settings, is_up) if not live & set(path.parts)],
        "streams": [key for key in streams(settings) if key.split(":")[1] not in known["task_runs"]] if is_up else [],
        "leases": [f"{known['leases']} ended goals' leases still live"] * bool(known["leases"]),
        "locks": [str(path) for path in git_locks(settings)]
        + [f"{known['locks']} advisory locks in PostgreSQL"] * bool(known["locks"] and not live),
    }
    return found


def _from_database() -> store.Row:
    with transaction("cli") as connection:
        return store.leftovers(connection)


def sandbox_folder(settings: Settings) -> Path:
    """Where the warden keeps the attempts' directories (its own rule)."""
    return folders.root(settings)


def containers(settings: Settings) -> list[str]:
    """Names of the containers of our sandboxes, running or not."""
    if checks.docker_problem(settings.docker_host):
        return []
    with httpx.Client(transport=httpx.HTTPTransport(uds=settings.docker_host.removeprefix("unix://")), timeout=10) as client:
        answer = client.get("http://docker/containers/json", params={"all": "1", "filters": json.dumps({"name": ["^/airlock-"]})})
    return [str(row["Names"][0]).lstrip("/") for row in answer.json()]


def mounts(settings: Settings) -> list[str]:
    """Mount points below the sandboxes' folder."""
    root = str(sandbox_folder(settings))
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{root}/")]


def sockets(settings: Settings, is_up: bool) -> list[Path]:
    """Unix sockets below the sandboxes' folder; when all is down also those of the processes."""
    folders = [sandbox_folder(settings), *([] if is_up else [settings.run_dir, settings.home / "postgres"])]
    return [path for folder in folders for path in _sockets_below(folder)]


def _sockets_below(folder: Path) -> list[Path]:
    found = []
    for parent, _, names in os.walk(folder):
        found += [path for name in names if stat.S_ISSOCK((path := Path(parent, name)).lstat().st_mode)]
    return found


def streams(settings: Settings) -> list[str]:
    """Streams of task runs."""
    try:
        return [key.decode() for key in redis.Redis.from_url(settings.valkey_url("broker"), socket_timeout=3).scan_iter("task:*")]
    except redis.ConnectionError as error:
        raise Unavailable("The stream server does not answer. Look at `./airlock status`.") from error


def git_locks(settings: Settings) -> list[Path]:
    """Lock files that a killed git left in a mirror."""
    return sorted(settings.mirrors_dir.rglob("*.lock"))


def delete_home(settings: Settings) -> None:
    """Delete the folder of all state. Everything must be down."""
    for point in mounts(settings):
        subprocess.run(["umount", "--lazy", point], check=False)
    for folder in (sandbox_folder(settings), settings.home):
        shutil.rmtree(folder, ignore_errors=True)
