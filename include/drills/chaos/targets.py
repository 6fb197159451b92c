"""What chaos can hit: the processes of one home, found afresh each time, and the signals it sends them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import NamedTuple

from include.database.unit_of_work import transaction
from include.drills.chaos import store
from include.errors import Unavailable
from include.local import control, leftovers
from include.sandbox import folders
from include.sandbox import leftovers as sandboxes
from include.settings import Settings

COMPONENTS = ("scheduler", "dag-processor", "api-server", "triggerer")
PROCESSES = {
    "broker": "broker-jarvis",
    "relay": "relay",
    "warden": "warden",
    "gatekeeper": "gatekeeper",
    "nursery": "nursery",
    "gate-nursery": "gate-nursery",
    "valkey": "valkey",
    "postgres": "postgres",
}
POINT = "a fault point"
KILLED = (*COMPONENTS, *PROCESSES, "worker", "supervisor", "all at once", "streams wiped", POINT, POINT, POINT)
"""What each deck of kills holds."""
ENDS_S = 5.0
STOPPED = ("triggerer", "relay", "worker", "broker")


class Hit(NamedTuple):
    """Processes that stand for one target now; ``lease`` is the sandbox's, for a worker."""

    pids: tuple[int, ...]
    lease: str = ""


def find(settings: Settings, target: str, chance: random.Random) -> Hit:
    """Find the processes of a target that live now; none while it is down (or no sandbox is live)."""
    if target in COMPONENTS:
        return Hit(_pids(_airflow(settings).get(target)))
    if target == "streams wiped":
        return Hit(_pids(_supervised(settings, "valkey")))
    if target in PROCESSES:
        return Hit(_pids(_supervised(settings, PROCESSES[target])))
    if target == "supervisor":
        return Hit(_pids(control.supervisor_pid(settings.home)))
    if target == "all at once":
        return Hit((*_pids(control.supervisor_pid(settings.home)), *leftovers.find(settings.home)))
    return _worker(settings, chance)


def _pids(pid: int | None) -> tuple[int, ...]:
    return (pid,) if pid and Path(f"/proc/{pid}").exists() else ()


def _airflow(settings: Settings) -> dict[str, int]:
    try:
        found: dict[str, int] = json.loads((settings.run_dir / "airflow.json").read_text())
    except (OSError, ValueError):
        return {}
    return found


def component_pid(settings: Settings, name: str) -> int | None:
    """Find the pid of one of Airflow's four; None while it is down."""
    return next(iter(_pids(_airflow(settings).get(name))), None)


def _supervised(settings: Settings, name: str) -> int | None:
    if control.supervisor_pid(settings.home) is None:
        return None
    return control.state(settings.home).process(name).pid


def _worker(settings: Settings, chance: random.Random) -> Hit:
    try:
        with transaction("owner") as connection:
            live = store.live_sandboxes(connection)
    except Unavailable:
        return Hit(())
    running = sandboxes.processes(folders.root(settings))
    there = [each for each in live if running.get(each.sandbox)]
    if not there:
        return Hit(())
    chosen = chance.choice(there)
    return Hit(tuple(running[chosen.sandbox]), chosen.lease)


def send(hit: Hit, number: int) -> None:
    """Send a signal to all of them; who has ended meanwhile is left out."""
    for pid in hit.pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def kill(settings: Settings, target: str, hit: Hit) -> None:
    """Kill a target's processes and wait for their ends; for wiped streams, then remove all that the stream server had stored."""
    send(hit, signal.SIGKILL)
    end = time.monotonic() + ENDS_S
    while any(leftovers.lives(pid) for pid in hit.pids) and time.monotonic() < end:
        time.sleep(0.02)
    if target == "streams wiped":
        shutil.rmtree(settings.home / "valkey" / "appendonlydir", ignore_errors=True)
