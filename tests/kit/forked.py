"""Processes of ours for tests, forked from one parent that has done their imports: a broker starts in 0.1 s of CPU instead of 4.

Each is a process of its own that runs the real module from its first line, with its own environment, and dies by a real signal. What a
test is about the start itself (its environment, its memory) is started afresh instead: ``fresh=True``.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

from include import faults, settings
from include.settings import ROOT

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.kit.forked_imports"])


class Forked:
    """A forked process, with the methods of ``subprocess.Popen`` that tests use.

    Args:
        command: as after ``python``: ``-m``, a module and its arguments, or ``-c`` and code.
        environment: all of its variables.
        log: the file for what it prints.
    """

    def __init__(self, command: tuple[str, ...], environment: dict[str, str], log: Path) -> None:
        self._process = _CONTEXT.Process(target=_live, args=(command, environment, str(log)), daemon=True)
        self._process.start()
        self.pid: int = self._process.pid  # type: ignore[assignment]

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it lives."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, at most so many seconds; returns the exit code.

        Raises:
            subprocess.TimeoutExpired: it lives on.
        """
        self._process.join(timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def _live(command: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    """Become what ``python *command`` would be, in the forked process."""
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(ROOT)
    importlib.reload(faults)  # reads its folder from the environment
    settings.settings.cache_clear()
    how, what, *arguments = command
    sys.argv = [what, *arguments]
    if how == "-m":
        for name in (what, f"{what}.__main__"):
            sys.modules.pop(name, None)  # it is run as __main__, once
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(what, {"__name__": "__main__"})
