"""Processes that this home's supervisor started and that should not live any more.

A process is ours when its environment carries our mark, or when it is a server that runs inside the home's folder (PostgreSQL
overwrites its environment, but stands in its data folder). A pid file is never trusted.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

MARK = "AIRLOCK_STARTED_BY"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return "Z"


def lives(pid: int) -> bool:
    """Tell whether a process is there and has not ended (one that nobody has reaped yet has)."""
    return _state(pid) not in "ZX"


def _is_ours(pid: int, home: Path, mark: bytes) -> bool:
    try:
        if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return True
        is_server = Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
        return is_server and Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(home / "postgres")
    except OSError:  # it has ended, or belongs to somebody else
        return False


def find(home: Path) -> list[int]:
    """Find the live processes of this home, without the asking one and its ancestors."""
    mark = f"{MARK}={home}".encode()
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if pid not in _lineage() and _is_ours(pid, home, mark) and lives(pid)]


def _lineage() -> set[int]:
    pid, seen = os.getpid(), set()
    while pid > 0 and pid not in seen:
        seen.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
        except OSError:
            break
    return seen


def stop(home: Path, patience_s: float = 8.0) -> int:
    """End what is left: ask first, kill what has not ended after the patience.

    Returns:
        How many processes there were.
    """
    there = find(home)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        _signal(find(home), number)
        end = time.monotonic() + patience_s / 2
        while (alive := find(home)) and time.monotonic() < end:
            time.sleep(0.1)
        if not alive:
            break
    return len(there)


def _signal(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
