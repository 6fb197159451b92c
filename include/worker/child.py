"""Runs one command sealed, with an end: its time is limited, its output is capped, and nothing of it outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from include.worker import sequence, strict_json, syscalls
from include.worker.errors import NotSealed
from include.worker.paths import Paths
from include.worker.seal import REFUSED_EXIT, Policy
from include.worker.sequence import Command, Ran


class Finished(NamedTuple):
    """How a command ended. ``exit_code`` is None if it was ended by us, and 128 + n if a signal ended it."""

    exit_code: int | None
    out: bytes
    err: bytes
    duration_ms: int
    told: bytes = b""  # by the pipe, if it had one


class Bounds(NamedTuple):
    """What bounds a sealed run.

    Attributes:
        policy: what it may reach.
        timeout_s: seconds after which everything that it started is killed.
        cwd: where it runs.
        environment: all that it gets, beside PATH, HOME and the locale; None: nothing else.
        keep: bytes kept of each of its outputs: the last ones.
        stop: when set, it is ended as if its time were over.
        tells: it gets a pipe to this process as descriptor ``seal.PIPE``: so many bytes of what it tells are kept, the first ones.
    """

    policy: Policy
    timeout_s: float
    cwd: Path
    environment: Mapping[str, str] | None = None
    keep: int = 64 * 1024
    stop: threading.Event | None = None
    tells: int = 0


def protect() -> None:
    """Make this process unreadable to others of its uid, and the heir of every process that its children leave behind.

    Raises:
        OSError: the kernel refused.
    """
    syscalls.prctl(syscalls.SET_DUMPABLE, 0)
    syscalls.prctl(syscalls.SET_CHILD_SUBREAPER, 1)


def run(paths: Paths, bounds: Bounds, command: list[str], stdin: bytes = b"") -> Finished:
    """Run a command sealed and wait for its end.

    Args:
        stdin: what it reads.

    Raises:
        NotSealed: it could not be sealed and was not run.
    """
    if not bounds.tells:
        return _run(paths, bounds, ["seal", _words(bounds.policy), *command], stdin)
    reading, writing = os.pipe()
    listener = _Head(reading, bounds.tells)
    try:
        finished = _run(paths, bounds, ["seal", _words(bounds.policy._replace(pipe=writing)), *command], stdin, writing)
    finally:
        told = listener.content()
    return finished._replace(told=told)


def run_all(paths: Paths, bounds: Bounds, commands: list[Command]) -> tuple[Finished, list[Ran]]:
    """Run several commands in one seal, one after the other, until one fails or says what ends the sequence.

    Args:
        bounds: of all of them together, also of what they print.

    Returns:
        How the whole ended, and how each command that was run did; none if the whole did not end by itself.

    Raises:
        NotSealed: they could not be sealed and were not run.
    """
    finished = _run(paths, bounds, ["sequence", _words(bounds.policy)], sequence.asked(commands))
    return finished, sequence.answered(finished.out) if finished.exit_code == 0 else []


def _words(policy: Policy) -> str:
    return strict_json.dumps(policy._asdict()).decode()


def _run(paths: Paths, bounds: Bounds, program: list[str], stdin: bytes, pipe: int | None = None) -> Finished:
    others = descendants()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(paths.program), *program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=bounds.cwd,
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(paths.scratch), "LC_ALL": "C.UTF-8", **(bounds.environment or {})},
        start_new_session=True,
        pass_fds=() if pipe is None else (pipe,),
    )
    if pipe is not None:
        os.close(pipe)  # the only one left is the child's
    tails = [_Tail(process.stdout, bounds.keep), _Tail(process.stderr, bounds.keep)]
    feeder = threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True)
    feeder.start()
    in_time = _wait(process, started + bounds.timeout_s, bounds.stop)
    code = process.poll()
    end_all(process.pid, others)
    process.wait()
    out, err = (tail.content() for tail in tails)
    if code == REFUSED_EXIT:
        raise NotSealed(err.decode(errors="replace").strip())
    exit_code = None if not in_time or code is None else code if code >= 0 else 128 - code
    return Finished(exit_code, out, err, int((time.monotonic() - started) * 1000))


def descendants() -> set[int]:
    """List every living process below this one, by /proc."""
    parents = dict(filter(None, map(_parent, os.listdir("/proc"))))
    found: set[int] = set()
    for pid in parents:
        line, above = [pid], parents.get(pid, 0)
        while above and above != os.getpid() and len(line) < 1000:
            line.append(above)
            above = parents.get(above, 0)
        if above == os.getpid():
            found.update(line)
    return found


def end_all(leader: int, others: set[int]) -> None:
    """Kill the session of ``leader`` and every descendant that is not among ``others``, wherever it hid, and reap them.

    As the subreaper we inherit what daemonises itself, so a new session is no way out.
    """
    for _ in range(500):
        left = descendants() - others
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
                if pid != leader:  # its own Popen object reaps it
                    os.waitpid(pid, os.WNOHANG)
            except (ProcessLookupError, ChildProcessError):
                continue
        if left == {leader}:
            return
        time.sleep(0.01)


def _parent(name: str) -> tuple[int, int] | None:
    if not name.isdigit():
        return None
    try:
        fields = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(name), int(fields[1])


def _wait(process: subprocess.Popen[bytes], until: float, stop: threading.Event | None) -> bool:
    """Wait; True if the process ended by itself in time."""
    pause = 0.005
    while process.poll() is None:
        if time.monotonic() >= until or (stop is not None and stop.is_set()):
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)
    return True


def _feed(pipe: IO[bytes] | None, content: bytes) -> None:
    assert pipe is not None
    try:
        pipe.write(content)
        pipe.close()
    except OSError:
        return  # it ended without reading


class _Tail:
    """Reads a pipe to its end in a thread, and keeps the last bytes."""

    def __init__(self, pipe: IO[bytes] | None, keep: int) -> None:
        assert pipe is not None
        self._pipe, self._keep, self._kept = pipe, keep, b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while part := os.read(self._pipe.fileno(), 65536):
            self._kept = (self._kept + part)[-self._keep :]

    def content(self) -> bytes:
        self._thread.join(10)
        self._pipe.close()
        return self._kept


class _Head:
    """Reads a pipe to its end in a thread, and keeps the first bytes."""

    def __init__(self, pipe: int, keep: int) -> None:
        self._pipe, self._keep, self._kept = pipe, keep, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while part := os.read(self._pipe, 65536):
            self._kept += part[: max(0, self._keep - len(self._kept))]

    def content(self) -> bytes:
        self._thread.join(10)
        if not self._thread.is_alive():
            os.close(self._pipe)
        return bytes(self._kept)
