"""``./airlock bench state``: one durable transition of a task run against a DBOS step and a LangGraph checkpoint, on the same PostgreSQL.

The peers are installed by their published packages into environments of the benchmark's own, which go away with it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psycopg

from include.clock import new_id
from include.database.queries import load
from include.database.unit_of_work import Connection, pooled_transaction, transaction
from include.drills.bench.report import Figures, percentile
from include.drills.bench.servers import Servers, temporary_servers
from include.local import health
from include.tasks import service as tasks
from include.tasks.models import AttemptRef, TaskRunState

_SQL = load(__file__)
_TASK = AttemptRef("gbench-a", 0)
_WARM_UP = 20
OURS = "Airlock transition"
AGAIN = f"{OURS}, again"
PEERS = {  # what is installed, and the program that measures it
    "DBOS step": (["dbos"], "peer_dbos.py"),
    "LangGraph checkpoint": (["langgraph", "langgraph-checkpoint-postgres", "psycopg[binary]"], "peer_langgraph.py"),
}
INSTALL_S = 300


def run(count: int) -> Figures:
    """Measure our transitions and the peers' steps; a peer that cannot be installed is left out, and the report says so.

    Args:
        count: transitions, steps and checkpoints, each one durable by itself.
    """
    notes = ["Ours: lock the task run, change its state (guarded by the table of transitions), its event and its NOTIFY, one commit."]
    with temporary_servers() as servers:
        _rows()
        measured = {OURS: _ours(lambda: pooled_transaction("airflow"), count)}
        with tempfile.TemporaryDirectory(prefix="airlock-peers-") as folder:
            for name, (packages, program) in PEERS.items():
                took = _peer(servers, Path(folder), packages, program, count)
                if isinstance(took, str):
                    notes.append(f"{name}: not measured. {took}")
                else:
                    measured[name] = took
        measured[AGAIN] = _ours(lambda: pooled_transaction("airflow"), count)
        measured[f"{OURS}, fresh connection"] = _ours(lambda: transaction("airflow"), count)
    return Figures(title=f"State: {count:,} of each, one after the other", rows=_table(measured), ratios=_ratios(measured), notes=notes)


def _table(measured: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"what": name, "p50_ms": round(percentile(took, 0.5), 3), "p95_ms": round(percentile(took, 0.95), 3), "max_ms": round(max(took), 3)}
        for name, took in measured.items()
    ]


def _ratios(measured: dict[str, list[float]]) -> dict[str, float]:
    """Compare ours, both times together, with each peer."""
    ours = measured[OURS] + measured[AGAIN]
    return {
        f"ours_to_{name.replace(' ', '_')}_p{share:.0%}".rstrip("%"): round(percentile(ours, share) / percentile(measured[name], share), 3)
        for name in PEERS
        if name in measured
        for share in (0.5, 0.95)
    }


def _rows() -> None:
    with transaction("owner") as connection:
        connection.execute(_SQL.bench_rows, {"goal": new_id()})
        task = tasks.lock_attempt(connection, _TASK)
        for state in ("POLICY_CHECK", "LEASED", "EXECUTING"):
            tasks.set_state(connection, task, TaskRunState(state))


def _ours(opened: Callable[[], AbstractContextManager[Connection]], count: int) -> list[float]:
    """Measure the milliseconds of each transition, from asking for a connection to after the commit."""
    took = []
    for number in range(_WARM_UP + count):
        state = TaskRunState.EXECUTING if number % 2 else TaskRunState.BLOCKED
        begun = time.perf_counter()
        with opened() as connection:
            tasks.set_state(connection, tasks.lock_attempt(connection, _TASK), state)
        took.append((time.perf_counter() - begun) * 1000)
    return took[_WARM_UP:]


def _peer(servers: Servers, folder: Path, packages: list[str], program: str, count: int) -> list[float] | str:
    """Measure the milliseconds of each step of a peer, or say why there are none."""
    name = program.removesuffix(".py")
    python = folder / name / "bin" / "python"
    for command in _install(folder / name, python, packages):
        done = _call(command, INSTALL_S)
        if done.returncode:
            return f"Its packages could not be installed: {_last_line(done)}"
    with psycopg.connect(health.admin_dsn(servers.settings), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    address = health.admin_dsn(servers.settings).rpartition("/")[0] + f"/{name}"
    done = _call([str(python), str(Path(__file__).parent / program), address, str(count)], INSTALL_S)
    if done.returncode:
        return f"It failed: {_last_line(done)}"
    took: list[float] = json.loads(done.stdout.splitlines()[-1])
    return took


def _install(environment: Path, python: Path, packages: list[str]) -> list[list[str]]:
    if uv := shutil.which("uv"):
        return [[uv, "venv", "--quiet", "--python", sys.executable, str(environment)],
                [uv, "pip", "install", "--quiet", "--python", str(python), *packages]]  # fmt: skip
    return [[sys.executable, "-m", "venv", str(environment)], [str(python), "-m", "pip", "install", "--quiet", *packages]]


def _call(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"it took longer than {seconds:g} s")


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return ((done.stderr or done.stdout).strip().splitlines() or ["no output"])[-1][-300:]
