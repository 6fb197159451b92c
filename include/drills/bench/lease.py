"""``./airlock bench lease``: how long after a lease is over its container is gone, with a real warden and real lease triggers.

For each engine that answers and each way to be over: so many sandboxes at work, due one after the other; the kernel tells when the last
process of each is gone.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from include import settings as settings_module
from include.database import queries, rows
from include.database.unit_of_work import transaction
from include.drills.bench.report import Figures, percentile
from include.drills.bench.servers import Servers, temporary_servers, wait_for
from include.drills.bench.workers import Worker, make_workers
from include.errors import AirlockError, Unavailable
from include.leases.service import PERSON_GRACE_S
from include.sandbox import folders, leftovers
from include.sandbox.client import ensure_sandbox
from include.settings import ROOT, Settings, settings

_SQL = queries.load(__file__)
HEARTBEAT_TIMEOUT_S = 5
"""Shorter than an installation's, so that a missed heartbeat need not be waited for so long; lateness counts from when it is over."""
UNWATCHED_S = 600
"""Longer than an installation's: on a busy machine the triggers may need a minute until they watch."""
APART_S = 0.7
PATIENCE_S = 120.0
PROGRAM = "import subprocess, time\nsubprocess.Popen(['sleep', '100000'])\ntime.sleep(100000)\n"


def run(count: int) -> Figures:
    """Measure how late sandboxes are gone, for each engine that answers and each way to be over.

    Args:
        count: sandboxes for each engine and way.
    """
    measured: list[dict[str, Any]] = []
    notes = [
        "From the moment when it is over (deadline, tokens used up, heartbeat due, Airflow's on_kill) until its last process is gone.",
        f"The grace is part of it: that is how long a worker may still take to stop. Heartbeat timeout {HEARTBEAT_TIMEOUT_S} s.",
    ]
    for engine in ("docker", "bubblewrap"):
        with temporary_servers() as servers, _node(servers, engine) as ready:
            if ready:
                time.sleep(HEARTBEAT_TIMEOUT_S)  # the calm after the start of PostgreSQL
                measured += [_row(servers, engine, what, count) for what in _WAYS]
            else:
                notes.append(f"Not measured: {engine} does not answer here.")
    return Figures(title=f"Leases: from over to gone, {count} sandboxes each", rows=measured, ratios={}, notes=notes)


def _row(servers: Servers, engine: str, what: str, count: int) -> dict[str, Any]:
    late = _measure(servers, what, count)
    figures = {"p50_ms": percentile(late, 0.5), "p95_ms": percentile(late, 0.95), "max_ms": max(late)}
    grace = {"deadline": 0.0, "UI cancel": PERSON_GRACE_S}.get(what, float(settings().grace_s))
    milliseconds = {"of_that_grace_ms": grace, **figures}
    return {"over_by": what, "engine": engine, "n": len(late)} | {key: round(s * 1000) for key, s in milliseconds.items()}


@contextmanager
def _node(servers: Servers, engine: str) -> Iterator[bool]:
    """Run a warden and a relay on the temporary servers; yields False if this engine does not answer."""
    os.environ |= {"AIRLOCK_ENGINE": engine, "AIRLOCK_NODE": "bench", "AIRLOCK_HEARTBEAT_TIMEOUT_S": str(HEARTBEAT_TIMEOUT_S)}
    os.environ |= {"AIRFLOW_HOME": str(servers.settings.home / "airflow"), "AIRLOCK_UNWATCHED_S": str(UNWATCHED_S)}
    settings_module.settings.cache_clear()
    servers.settings = mine = settings()
    for folder in (mine.bundles_dir, mine.toolbox_dir):
        folder.mkdir()
    (mine.bundles_dir / ".bundle").write_bytes(b"")  # the played workers start from no commit
    (mine.toolbox_dir / "worker.pyz").write_text(PROGRAM)
    servers.python("relay", "-m", "include.sandbox.relay_start")
    warden = servers.python("warden", "-m", "include.sandbox.warden")
    try:
        wait_for("the warden serves or gives up", lambda: _serves() or warden.poll() is not None, 60)
        yield warden.poll() is None
    finally:
        servers.close()
        if not folders.root(mine).is_relative_to(mine.home):
            shutil.rmtree(folders.root(mine), ignore_errors=True)


def _serves() -> bool:
    try:
        ensure_sandbox(settings().node, "airlock-none")
    except Unavailable:
        return False
    except AirlockError:  # there is no such lease, which the warden knows
        return True
    return True


def _measure(servers: Servers, what: str, count: int) -> list[float]:
    """Measure the seconds from over to gone of each sandbox."""
    run_id, workers = make_workers(count)
    try:
        with _sensor(servers, run_id, workers) as cancel:
            for worker in workers:
                ensure_sandbox(settings().node, f"airlock-{worker.task_run}-1")
                _do(_SQL.all_well, run=run_id)
            due = _WAYS[what](servers.settings, cancel)
            return _lateness(servers.settings, workers, due)
    finally:
        _do(_SQL.revoke_all, run=run_id)
        wait_for("all sandboxes have ended", lambda: not _ask(_SQL.living, run=run_id), 60)


@contextmanager
def _sensor(servers: Servers, run_id: str, workers: list[Worker]) -> Iterator[Callable[[Worker], None]]:
    """Run the lease triggers of these workers; yields what cancels one as a person's mark in Airflow does."""
    keys = [_key(worker) for worker in workers]
    with (servers.settings.logs_dir / "sensor.log").open("ab") as log:
        command = [sys.executable, "-m", "include.drills.bench.sensor", run_id, *keys]
        sensor = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def cancel(worker: Worker) -> None:
        assert sensor.stdin is not None
        sensor.stdin.write(f"{_key(worker)}\n".encode())
        sensor.stdin.flush()

    try:
        wait_for("the triggers own their leases", lambda: _ask(_SQL.owned_by_a_sensor, run=run_id) == len(workers), 180)
        yield cancel
    finally:
        sensor.kill()
        sensor.wait()


def _key(worker: Worker) -> str:
    return worker.task_run.rpartition("-")[2]


_Due = Callable[[Worker], float]


def _by(statement: str) -> Callable[[Settings, Callable[[Worker], None]], _Due]:
    def make(mine: Settings, _: Callable[[Worker], None]) -> _Due:
        return lambda worker: float(_ask(statement, lease=worker.lease, timeout=mine.heartbeat_timeout_s))

    return make


def _by_a_person(_: Settings, cancel: Callable[[Worker], None]) -> _Due:
    def due(worker: Worker) -> float:
        at = float(_ask(_SQL.due_now))
        cancel(worker)
        return at

    return due


_WAYS = {
    "deadline": _by(_SQL.due_by_deadline),
    "tokens": _by(_SQL.due_by_tokens),
    "missed heartbeat": _by(_SQL.due_by_silence),
    "UI cancel": _by_a_person,
}


def _lateness(mine: Settings, workers: list[Worker], due: _Due) -> list[float]:
    """Let one worker after the other come due, and wait for the kernel's word on each process of its sandbox."""
    waiting = _pidfds(mine, workers)
    dues: dict[str, float] = {}

    def go() -> None:
        for worker in workers:
            dues[worker.task_run] = due(worker)
            time.sleep(APART_S)

    thread = threading.Thread(target=go)
    thread.start()
    poll, gone, end = select.poll(), dict[str, float](), time.monotonic() + PATIENCE_S
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        for descriptor, _ in poll.poll(1000):
            gone[waiting.pop(descriptor)] = time.time()  # the last process of each stays
            poll.unregister(descriptor)
            os.close(descriptor)
        if time.monotonic() > end:
            raise Unavailable(f"{len(set(waiting.values()))} sandboxes were not ended within {PATIENCE_S:g} s.")
    thread.join()
    return [gone[task_run] - at for task_run, at in dues.items()]


def _pidfds(mine: Settings, workers: list[Worker]) -> dict[int, str]:
    """Open a descriptor of each process of each sandbox."""
    owners = {f"airlock-{worker.task_run}-1": worker.task_run for worker in workers}
    there = leftovers.processes(folders.root(mine))
    found = {os.pidfd_open(pid): task_run for name, task_run in owners.items() for pid in there.get(name, [])}
    if missing := len(workers) - len(set(found.values())):
        raise Unavailable(f"{missing} sandboxes have no process: look at the warden's log.")
    return found


def _do(statement: str, **values: Any) -> None:
    with transaction("owner") as connection:
        connection.execute(statement, values)


def _ask(statement: str, **values: Any) -> Any:
    with transaction("owner") as connection:
        return rows.scalar(connection, statement, **values)
