"""Airflow under our roof: the launcher that imports it once and forks its four components. Its settings: ``airflow_settings.py``.

``python -m include.local.airflow`` migrates Airflow's metadata database, forks scheduler, dag-processor, triggerer and api-server (each the
leader of a process group of its own, with a log of its own), and stays as their parent. A component that dies is forked again with backoff;
SIGTERM ends all. Every process that is forked dies with its parent, so kill -9 of the launcher leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from include.local.airflow_settings import environment
from include.local.files import write_private
from include.settings import ROOT, Settings, settings

COMPONENTS = {
    "scheduler": ("scheduler", "-s"),  # -s: no log server of its own, the api-server reads the files
    "dag-processor": ("dag-processor",),
    "api-server": ("api-server",),
    "triggerer": ("triggerer", "-s"),
}
STOP_S = 8.0  # how long a component may take to end on SIGTERM before its group is killed
STEADY_S = 15.0  # a component that lived so long starts its backoff anew
MAX_PAUSE_S = 8.0  # longest pause before a component is started again: who watches the leases may not stay away

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process, which was just forked, when its parent ends, however that ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Component:
    """One of Airflow's four, as a child process."""

    def __init__(self, name: str, argv: tuple[str, ...], log: Path) -> None:
        self.name, self.argv, self.log = name, argv, log
        self.pid = 0
        self.deaths = 0
        self.started = self.due = 0.0

    def fork(self) -> None:
        """Start it from the memory image of this process."""
        self.started = time.monotonic()
        launcher = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(launcher)

    def _live(self, launcher: int) -> None:
        code = 1
        try:
            os.setsid()
            if os.getppid() != launcher:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            gc.enable()
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            from include.flow.preload import component

            code = component(self.argv, settings().dsn("owner", "airflow"))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def died(self) -> None:
        """Note a death, and when to start again: after 1, 2, 4, 8 s."""
        now = time.monotonic()
        self.deaths = 1 if now - self.started > STEADY_S else self.deaths + 1
        self.pid, self.due = 0, now + min(MAX_PAUSE_S, 2.0 ** (self.deaths - 1))


class Launcher:
    """The parent of the four."""

    def __init__(self, settings: Settings) -> None:
        settings.logs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.pids = settings.run_dir / "airflow.json"
        self.parts = [Component(name, argv, settings.logs_dir / f"airflow-{name}.log") for name, argv in COMPONENTS.items()]

    def run(self) -> None:
        """Keep the four alive until SIGTERM or SIGINT, then end them."""
        waited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, waited)
        if any(part.pid for part in self.parts):
            self._bury()  # who ended before we listened
        while True:
            self._start_due()
            got = signal.sigtimedwait(waited, self._pause())
            self._bury()
            if got and got.si_signo != signal.SIGCHLD:
                return self._stop()

    def start(self, names: Sequence[str]) -> None:
        """Start these before ``run`` keeps them all alive."""
        self._start([part for part in self.parts if part.name in names])

    def _start_due(self) -> None:
        self._start([part for part in self.parts if not part.pid and part.due <= time.monotonic()])

    def _start(self, due: list[Component]) -> None:
        for part in due:
            part.fork()
        if due:
            self._write()

    def _pause(self) -> float:
        """Count the seconds until a dead component is due again."""
        return max(0.05, min((part.due - time.monotonic() for part in self.parts if not part.pid), default=3600.0))

    def _bury(self) -> list[str]:
        """Kill what is left of the groups of dead components, then reap those."""
        names = []
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            part = next((part for part in self.parts if part.pid == dead.si_pid), None)
            if part:
                _kill_group(part.pid, signal.SIGKILL)
                print(f"airflow {part.name} (pid {part.pid}) ended with {dead.si_status}; its log: {part.log}", flush=True)
                part.died()
                names.append(part.name)
                self._write()
            os.waitpid(dead.si_pid, 0)
            if not any(part.pid for part in self.parts):
                break
        return names

    def _stop(self) -> None:
        for part in self.parts:
            if part.pid:
                os.kill(part.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while any(part.pid for part in self.parts) and (left := end - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self._bury()
        for part in self.parts:
            if part.pid:
                _kill_group(part.pid, signal.SIGKILL)
                os.waitpid(part.pid, 0)
        self.pids.unlink(missing_ok=True)

    def _write(self) -> None:
        alive = {part.name: part.pid for part in self.parts if part.pid}
        write_private(self.pids, json.dumps({"launcher": os.getpid(), **alive}))


def _kill_group(pid: int, signal_: int) -> None:
    try:
        os.killpg(pid, signal_)
    except (ProcessLookupError, PermissionError):
        pass


def _fork(work: Callable[[], object]) -> int:
    """Fork a child that does this and ends without running our exit handlers; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main(overrides: Mapping[str, str] | None = None) -> None:
    """Run Airflow until SIGTERM.

    Args:
        overrides: environment variables that differ from ``environment``'s.
    """
    os.environ.update({**environment(settings()), **(overrides or {})})
    sys.path[:] = [str(ROOT), str(ROOT / "config"), *(entry for entry in sys.path if entry not in ("", str(ROOT), str(ROOT / "config")))]
    os.register_at_fork(after_in_child=die_with_parent)
    launcher = Launcher(settings())
    gc.disable()  # a fifth of the imports' time; what they make stays anyway
    _fork_in_stages(launcher, settings().dsn("owner", "airflow"))
    gc.enable()
    launcher.run()


def _fork_in_stages(launcher: Launcher, dsn: str) -> None:
    """Import what Airflow needs, and fork each component as soon as it has all of it: it begins while the rest is imported."""
    from include.flow.preload import is_newest, migrate, stages

    made, migration = False, 0
    for names in stages():
        if not migration and not made:
            made = is_newest(dsn)
            migration = 0 if made else _fork(migrate)  # beside the imports; a child, so that no connection is inherited by the four
        gc.collect()
        gc.freeze()
        if made:
            launcher.start(names)
    if migration and os.waitpid(migration, 0)[1]:
        sys.exit("Airflow's metadata database could not be brought to its newest version; the reason stands above.")


if __name__ == "__main__":
    main()
