"""One process under the supervisor: how it is started, and how it fares."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from include.local import leftovers
from include.local.models import ProcessState
from include.local.nursery import Forked
from include.local.processes import Supervised
from include.settings import ROOT

BACKOFF_S = (1.0, 30.0)
STEADY_S = 10.0  # a process that was ready for so long begins its backoff anew
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Child:
    """A process and how it fares."""

    process: Supervised
    state: str = "waiting"  # waiting, starting, ready, unhealthy, done, crashed
    popen: subprocess.Popen[bytes] | Forked | None = None
    restarts: int = 0
    falls: int = 0  # restarts in a row after a short life: what the pause grows with
    since: float = 0.0
    ready_at: float = 0.0  # 0: not since its start
    exit: int | None = None
    due: float = 0.0  # monotonic: not before
    looked: float = 0.0
    misses: int = 0

    @property
    def is_up(self) -> bool:
        """Tell whether others may build on it."""
        return self.state in ("ready", "unhealthy", "done")

    def fell(self, now: float) -> None:
        """Note that it ended though it should live, and when it may be started again."""
        was_steady = self.ready_at > 0 and time.time() - self.ready_at > STEADY_S
        self.restarts, self.falls = self.restarts + 1, 1 if was_steady else self.falls + 1
        self.state, self.due = "crashed", now + min(BACKOFF_S[0] * 2 ** min(self.falls - 1, 5), BACKOFF_S[1])

    def public(self) -> ProcessState:
        """Make what ``status`` shows of it."""
        pid = self.popen.pid if self.popen and self.popen.returncode is None else None
        return ProcessState(state=self.state, pid=pid, restarts=self.restarts, falls=self.falls, since=self.since,
                            address=self.process.address, exit=self.exit)  # fmt: skip


def execute(process: Supervised, home: Path, stdin: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the program of a process as a child that dies with us, and leads a process group of its own."""
    mine = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, process.stop_signal)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's `&` would have it ignored
        if os.getppid() != mine:
            os._exit(1)

    return subprocess.Popen(
        process.command, cwd=ROOT, stdin=stdin, stdout=log, stderr=log,
        env=child_environment(home), start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip


def child_environment(home: Path) -> dict[str, str]:
    """Make the environment that every process is started with: no credential of a model is in it."""
    environment = dict(os.environ)
    for name in [name for name in environment if name.startswith("ANTHROPIC_")]:
        del environment[name]
    return environment | {"AIRLOCK_HOME": str(home), leftovers.MARK: str(home), "PYTHONUNBUFFERED": "1"}


def open_log(home: Path, name: str) -> IO[bytes]:
    """Open the log of a process to append; the one before is kept once it is 16 MiB long."""
    path = home / "logs" / f"{name}.log"
    if path.exists() and path.stat().st_size > 16 * 1024**2:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def kill_group(leader: int) -> None:
    """Kill a child with its own children."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return
