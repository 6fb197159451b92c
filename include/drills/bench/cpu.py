"""CPU seconds of an Airlock, process by process, from /proc."""

from __future__ import annotations

import json
import os
from pathlib import Path

from include.local import control
from include.settings import Settings

_TICKS = os.sysconf("SC_CLK_TCK")
Used = dict[str, float]
"""Seconds by process, each with all below it, also what has ended and was waited for."""


def now(settings: Settings) -> Used:
    """Read what each process of a running Airlock has used so far; ``supervisor`` is what is below none of them."""
    seen = dict(filter(None, map(_stat, Path("/proc").glob("[0-9]*"))))
    below: dict[int, list[int]] = {}
    for pid, (parent, _) in seen.items():
        below.setdefault(parent, []).append(pid)
    names = {pid: name for name, pid in _processes(settings).items() if pid in seen}
    used: Used = {}
    queue = [(control.supervisor_pid(settings.home) or 0, "supervisor")]
    while queue:
        pid, name = queue.pop()
        name = names.get(pid, name)
        used[name] = used.get(name, 0.0) + (seen[pid][1] if pid in seen else 0) / _TICKS
        queue += [(child, name) for child in below.get(pid, [])]
    return used


def since(before: Used, after: Used) -> Used:
    """Subtract one look from another: what was used between the two."""
    return {name: max(0.0, seconds - before.get(name, 0.0)) for name, seconds in after.items()}


def _processes(settings: Settings) -> dict[str, int]:
    """Find the supervisor's processes and Airflow's components, by name."""
    found = {name: process.pid for name, process in control.state(settings.home).processes.items() if process.pid}
    components: dict[str, int] = json.loads((settings.run_dir / "airflow.json").read_text())
    return {**found, **{f"airflow-{name}": pid for name, pid in components.items()}}


def _stat(folder: Path) -> tuple[int, tuple[int, int]] | None:
    """Read a process's parent, and its ticks: user and system, its own and those of the children that it waited for."""
    try:
        words = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(folder.name), (int(words[1]), sum(map(int, words[11:15])))
