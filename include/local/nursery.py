"""A nursery: a process that imports what others need, once, and forks one of them whenever the supervisor asks. It does nothing else.

``python -m include.local.nursery MODULE…``, with a socket to the supervisor as its standard input. It holds no secret and opens nothing: a
child has the modules and nothing more, reads its settings and keys itself, and is from its first instruction on a child of the supervisor
(the process between them ends at once, and the supervisor adopts whom it leaves). So who is killed is judged as everybody is: by the
supervisor, by its exit status; and a killed nursery takes nobody with it.

A request is one message: what to run, and three descriptors (the child's standard input, its log, and a line to the supervisor). On the
line the child says its pid and waits for a word; without one (the supervisor gave up on it) it ends and has done nothing.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from setproctitle import getproctitle, setproctitle

PR_SET_PDEATHSIG = 1
READY = b"ready"
ANSWER_S = 5.0
"""Seconds in which a child must have said its pid; a start that took longer is given up and tried again."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class Request(NamedTuple):
    """One process to fork: the module whose ``main`` it runs, its arguments, all of its environment, and how it is told to stop."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    stop_signal: int


# -- the supervisor's side -------------------------------------------------------------------------------------------------


class Forked:
    """A child of ours that a nursery forked: the few calls of ``subprocess.Popen`` that the supervisor needs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Ask for its exit status as Popen has it; None while it lives."""
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has reaped it: how it ended is not known
                self.returncode = 1
            else:
                self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still lives after ``timeout`` seconds.
        """
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.02)
        return code

    def send_signal(self, number: int) -> None:
        """Signal it, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class NurseryLine:
    """The supervisor's end of the socket to one nursery."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._is_ready = False

    def close(self) -> None:
        """Let go of it: the nursery ends."""
        self._ours.close()

    def ready(self) -> bool:
        """Tell whether the nursery has imported everything."""
        if not self._is_ready:
            try:
                self._is_ready = self._ours.recv(len(READY), socket.MSG_DONTWAIT) == READY
            except OSError:
                return False
        return self._is_ready

    def fork(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], fds: tuple[int, int], stop_signal: int) -> Forked:
        """Have a process forked, and wait until it is there.

        Args:
            module: whose ``main`` it runs.
            arguments: its command line after the module.
            environment: all of its environment.
            fds: what becomes its standard input, and its standard output and error.
            stop_signal: what it gets when this process ends.

        Raises:
            OSError: the nursery is gone, or no child spoke up within ``ANSWER_S``; nothing runs then.
        """
        request = Request(module, list(arguments), dict(environment), stop_signal)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                socket.send_fds(self._ours, [json.dumps(request._asdict()).encode()], [*fds, theirs.fileno()], socket.MSG_NOSIGNAL)
            ours.settimeout(ANSWER_S)
            said = ours.recv(32)
            if not said:
                raise ChildProcessError(f"the nursery could not fork {module}; its log says why")
            ours.send(b"go")
        return Forked(int(said))


# -- the nursery -----------------------------------------------------------------------------------------------------------


def main() -> None:
    """Import the modules that the command line names, then fork on request until the supervisor is gone."""
    line = socket.socket(fileno=os.dup(0))
    os.environ["SPT_NOENV"] = "1"  # a title may not overwrite the environment that /proc shows: our mark is in it
    getproctitle()  # finds its place in memory now, before a child changes its environment
    gc.disable()  # a fifth of the imports' time; what they make stays anyway
    for name in sys.argv[1:]:
        try:
            importlib.import_module(name)
        except Exception:  # whoever needs it fails by it, with a log of its own; the others live
            traceback.print_exc()
    gc.collect()
    gc.freeze()
    gc.enable()
    line.send(READY)
    while True:
        message, fds, _, _ = socket.recv_fds(line, 1 << 20, 3)
        if not message:
            return
        _fork(Request(**json.loads(message)), fds, line)


def _fork(request: Request, fds: list[int], line: socket.socket) -> None:
    """Fork twice: the one between ends at once, so that the supervisor (the nearest subreaper) becomes the child's parent."""
    supervisor = os.getppid()
    between = os.fork()
    if between == 0:
        between = os.getpid()
        if os.fork():
            os._exit(0)
        line.close()
        _live(request, fds, between, supervisor)
    for fd in fds:
        os.close(fd)
    os.waitpid(between, 0)


def _live(request: Request, fds: list[int], between: int, supervisor: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        _wait_for_adoption(between, supervisor, request.stop_signal)
        _report(socket.socket(fileno=fds[2]))
        for source, target in ((fds[0], 0), (fds[1], 1), (fds[1], 2)):
            os.dup2(source, target)
        for fd in fds[:2]:
            os.close(fd)
        code = _run(request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _wait_for_adoption(between: int, supervisor: int, stop_signal: int) -> None:
    while os.getppid() == between:
        time.sleep(0.001)
    _LIBC.prctl(PR_SET_PDEATHSIG, stop_signal)
    if os.getppid() != supervisor:
        os._exit(1)


def _report(line: socket.socket) -> None:
    with line:
        line.send(str(os.getpid()).encode())
        if line.recv(8) != b"go":
            os._exit(1)


def _run(request: Request) -> int:
    """Be that module's process: its environment, its command line, its ``main``."""
    os.environ.clear()
    os.environ.update(request.environment)
    sys.argv = [request.module, *request.arguments]
    setproctitle(f"{sys.executable} -m {' '.join(sys.argv)}")  # for who looks with ps
    try:
        _program(request.module).main()
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr, flush=True)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _program(module: str) -> Any:
    """Import what ``python -m module`` runs: the module, or a package's ``__main__``."""
    found = importlib.import_module(module)
    return importlib.import_module(f"{module}.__main__") if hasattr(found, "__path__") else found


if __name__ == "__main__":
    main()
