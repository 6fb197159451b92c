"""One supervisor a home: starts the processes in order, restarts what crashes, stops all. ``python -m include.local.supervisor``.

It judges a process by its exit status and by its answer, never by a pid file. Our own processes are forked by a nursery that has
imported them already (``nursery``); all are the supervisor's children. Every child dies with it (the parent-death signal), and what
outlived an earlier supervisor is stopped before anything starts. What it knows stands in ``home/run/state.json``.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from include.local import keys, leftovers, modes, runtime
from include.local.child import Child, child_environment, execute, kill_group, open_log
from include.local.models import Known
from include.local.nursery import Forked, NurseryLine
from include.local.processes import Supervised, default_processes
from include.settings import Settings, load

HEALTH_S = 5.0
UNHEALTHY_AFTER = 3
PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class Supervisor:
    """Runs a list of processes until it is told to stop."""

    def __init__(self, home: Path, processes: list[Supervised], notes: list[str] | None = None, model: str = "") -> None:
        self.home = home
        self.children = {process.name: Child(process) for process in processes}
        self.notes = notes or []
        self.model = model
        self.stopping = False
        self._written = ""
        self._lines: dict[str, NurseryLine] = {}
        self._wake, theirs = socket.socketpair()
        for end in (self._wake, theirs):
            end.setblocking(False)
        self._theirs = theirs

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start, watch, and at SIGTERM or SIGINT stop everything."""
        self._listen()
        while not self.stopping:
            for child in sorted(self.children.values(), key=lambda child: not child.process.early):
                self._tend(child)
            self._reap_orphans()
            self._write("ready" if all(child.is_up for child in self.children.values()) else "starting")
            steady = all(child.state in ("ready", "done") for child in self.children.values())
            self._sleep(1.0 if steady else 0.3)
        self.stop()

    def _listen(self) -> None:
        _libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _on_stop(self, *_: object) -> None:
        self.stopping = True

    def _sleep(self, seconds: float) -> None:
        if select.select([self._wake], [], [], seconds)[0]:
            self._wake.recv(4096)

    def _tend(self, child: Child) -> None:
        now = time.monotonic()
        if child.popen and child.popen.poll() is not None:
            self._ended(child, now)
        elif (
            not child.popen
            and child.state != "done"
            and now >= child.due
            and all(self.children[need].is_up for need in child.process.needs)
        ):
            self._start(child)
        elif child.popen and not child.process.once and (child.state == "starting" or now - child.looked > HEALTH_S):
            self._look(child, now)

    # -- one child -----------------------------------------------------------------------------------------------------

    def _start(self, child: Child) -> None:
        try:
            child.process.before_start()
            child.popen = self._spawn(child.process)
        except Exception as error:  # the next try may go better; the log says what happened
            self._say(f"{child.process.name} cannot be started: {error}")
            child.fell(time.monotonic())
            return
        child.state, child.since, child.ready_at, child.misses = "starting", time.time(), 0.0, 0

    def _spawn(self, process: Supervised) -> subprocess.Popen[bytes] | Forked:
        with open_log(self.home, process.name) as log:
            if not process.is_nursery:
                with open(os.devnull, "rb") as nothing:
                    return self._begin(process, nothing.fileno(), log)
            if old := self._lines.pop(process.name, None):
                old.close()
            line = self._lines[process.name] = NurseryLine()
            with line.theirs:
                return self._begin(process, line.theirs.fileno(), log)

    def _begin(self, process: Supervised, stdin: int, log: IO[bytes]) -> subprocess.Popen[bytes] | Forked:
        """Have its nursery fork it; where there is none, or it does not answer, start its program anew."""
        if line := self._lines.get(process.nursery):
            try:
                arguments, environment = process.command[3:], child_environment(self.home)
                return line.fork(process.command[2], arguments, environment, (stdin, log.fileno()), process.stop_signal)
            except (OSError, ValueError) as error:
                self._say(f"{process.nursery} does not fork {process.name} ({error}); it is started without")
        return execute(process, self.home, stdin, log)

    def _ended(self, child: Child, now: float) -> None:
        assert child.popen is not None
        kill_group(child.popen.pid)  # its own children: PostgreSQL does not start beside the backends of a dead postmaster
        child.exit, child.popen = child.popen.returncode, None
        if child.process.once and child.exit == 0:
            child.state = "done"
            return
        self._say(f"{child.process.name} ended with {child.exit}; it is started again. See {self.home}/logs/{child.process.name}.log")
        child.fell(now)

    def _look(self, child: Child, now: float) -> None:
        child.looked = now
        ready = self._lines[child.process.name].ready if child.process.is_nursery else child.process.ready
        if ready():
            child.state, child.misses, child.ready_at = "ready", 0, child.ready_at or time.time()
        elif child.state != "starting":
            child.misses += 1
            child.state = "unhealthy" if child.misses >= UNHEALTHY_AFTER else child.state

    def _reap_orphans(self) -> None:
        known = {child.popen.pid for child in self.children.values() if child.popen}
        listed = Path(f"/proc/self/task/{os.getpid()}/children")
        for pid in {int(word) for word in listed.read_text().split()} - known if listed.exists() else ():
            os.waitpid(pid, os.WNOHANG)

    # -- the end -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop all, the last started first; then whatever else carries this home's mark."""
        self.stopping = True
        for child in reversed(self.children.values()):
            self._write("stopping")
            self._stop_child(child)
        self._reap_orphans()
        leftovers.stop(self.home, patience_s=4)
        for path in (self.home / "run").glob("*.sock"):
            path.unlink()
        self._write("down")

    def _stop_child(self, child: Child) -> None:
        if child.popen and child.popen.poll() is None:
            child.popen.send_signal(child.process.stop_signal)
            try:
                child.popen.wait(child.process.stop_s)
            except subprocess.TimeoutExpired:
                self._say(f"{child.process.name} did not stop in {child.process.stop_s:g} s and is killed")
                kill_group(child.popen.pid)
                child.popen.wait()
        was_up, child.popen, child.state = child.is_up, None, "stopped"
        if was_up:
            child.process.after_stop()

    # -- what it tells -------------------------------------------------------------------------------------------------

    def _say(self, words: str) -> None:
        print(time.strftime("%H:%M:%S"), words, flush=True)

    def _write(self, state: str) -> None:
        known = {name: child.public() for name, child in self.children.items()}
        text = Known(state=state, pid=os.getpid(), notes=tuple(self.notes), model=self.model, processes=known).model_dump_json(indent=1)
        if text != self._written:
            new = self.home / "run" / ".state.json.new"
            new.write_text(text)
            new.replace(self.home / "run" / "state.json")
            self._written = text


def take_lock(home: Path) -> IO[str] | None:
    """Take the lock of the one supervisor; None when another holds it (a `status` that just looks holds it for an instant)."""
    file = (home / "run" / "supervisor.lock").open("a+")
    for _ in range(20):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError:
            time.sleep(0.05)
    file.close()
    return None


def main(processes: Callable[[Settings], list[Supervised]] = default_processes) -> int:
    """Run the processes of this home.

    Args:
        processes: makes the list of them.

    Returns:
        The exit code: 0, also when another supervisor already runs.
    """
    home = load().home
    modes.make(home)
    for folder in (home / "run", home / "logs"):
        folder.mkdir(exist_ok=True, mode=0o700)
    lock = take_lock(home)
    if lock is None:
        return 0
    os.environ[leftovers.MARK] = str(home)
    notes = [f"{count} processes of an earlier run were still there and were stopped."] if (count := leftovers.stop(home)) else []
    notes += runtime.choose(home)
    settings = load(home)
    stored = keys.holders(settings.keys_dir)
    model = (
        "offline playbook" if settings.offline else f"{settings.anthropic_base_url or 'the Anthropic API'} (keys of {', '.join(stored)})"
    )
    Supervisor(home, processes(settings), notes, model).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
