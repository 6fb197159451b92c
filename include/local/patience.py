"""Whether processes that are still coming get on: judged by what they do. The clock alone says nothing on a loaded machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil

LOOK_S = 1.0
SHARE = 0.2
"""Of one processor that they have or wait for: a process that starts wants nearly all of it, one that only waits next to nothing."""
AT_MOST = 10
"""Times the patience, after which not even those that get on are waited for."""


class Patience:
    """Ends when nothing has moved for a while.

    Args:
        seconds: of this while.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = self._moved_at = self._looked_at = time.monotonic()
        self._wanted: dict[int, float] = {}
        self._seen: object = None

    def look(self, seen: object, pids: Iterable[int]) -> None:
        """Look whether anything has moved, at most once a second.

        Args:
            seen: anything; a change of it is a move.
            pids: of the processes that are still coming; their descendants count too.
        """
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        wanted = {pid: _wanted_s(pid) for pid in _families(pids)}
        gained = sum(max(0.0, seconds - self._wanted.get(pid, seconds)) for pid, seconds in wanted.items())
        if seen != self._seen or gained >= SHARE * (now - self._looked_at):
            self._moved_at = now
        self._seen, self._wanted, self._looked_at = seen, wanted, now

    def is_over(self) -> str:
        """Say why there is no further wait; empty while there is."""
        now = time.monotonic()
        if now - self._moved_at > self.seconds:
            return f"Nothing has moved for {self.seconds:g} s"
        if now - self.began > AT_MOST * self.seconds:
            return f"Not all is up after {now - self.began:.0f} s"
        return ""


def _families(pids: Iterable[int]) -> set[int]:
    found = set[int]()
    for pid in pids:
        try:
            found |= {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}  # type: ignore[no-untyped-call]
        except psutil.NoSuchProcess:
            continue
    return found


def _wanted_s(pid: int) -> float:
    """Read for how many seconds a process had a processor, or was ready to run and had none (Linux tells both in nanoseconds)."""
    try:
        had, waited = Path(f"/proc/{pid}/schedstat").read_text().split()[:2]
        return (int(had) + int(waited)) / 1e9
    except (OSError, ValueError):
        return 0.0
