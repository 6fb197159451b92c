"""``worker.pyz sequence POLICY``: seal, then run several commands one after the other. What a seal costs is paid once for all of them.

The commands come as JSON on stdin, and what became of each goes out as JSON on stdout. This process is as sealed as the commands are.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, NamedTuple

from include.worker import seal, strict_json
from include.worker.errors import NotSealed

MAX_OUTPUT_BYTES = 1024 * 1024
"""Kept of each output of each command: the first of what it prints, the last of what it complains of."""


class Command(NamedTuple):
    """One command, and when the sequence ends with it.

    Args:
        words: the program and its arguments.
        cwd: where it runs.
        stdin: what it reads.
        only: the one output after which the sequence goes on; None: any.
        unless: the output after which it ends; None: none.
    """

    words: list[str]
    cwd: str
    stdin: str = ""
    only: str | None = None
    unless: str | None = None


class Ran(NamedTuple):
    """How a command ended: its exit code, and its outputs without the newline at the end."""

    code: int
    out: str
    err: str


def asked(commands: list[Command]) -> bytes:
    """Write what ``main`` reads."""
    return json.dumps([command._asdict() for command in commands]).encode("ascii")


def answered(out: bytes) -> list[Ran]:
    """Read what ``main`` wrote: one for each command that was run.

    Raises:
        ValueError: that is not it.
    """
    return [_ran(each) for each in strict_json.loads(out)]


def _ran(told: object) -> Ran:
    match told:
        case {"code": int(code), "out": str(out), "err": str(err)}:
            return Ran(code, out, err)
    raise ValueError("that does not say how a command ended")


def main(arguments: list[str]) -> int:
    """Seal, then run what stands on stdin until a command fails, or says what ends the sequence (125: not sealed, nothing was run)."""
    commands = [Command(**each) for each in strict_json.loads(sys.stdin.buffer.read())]
    try:
        seal.become(arguments[0])
    except NotSealed as error:
        print(error, file=sys.stderr)
        return seal.REFUSED_EXIT
    results: list[dict[str, Any]] = []
    for command in commands:
        ran = _run(command)
        results.append(ran._asdict())
        if ran.code or ran.out == command.unless or command.only not in (None, ran.out):
            break
    sys.stdout.write(json.dumps(results))
    return 0


def _run(command: Command) -> Ran:
    """By files in memory instead of pipes: nothing can block, and nothing has to be read meanwhile."""
    files = [os.memfd_create(name) for name in ("in", "out", "err")]
    try:
        os.pwrite(files[0], command.stdin.encode("utf-8", errors="surrogateescape"), 0)
        os.chdir(command.cwd)
        actions = [(os.POSIX_SPAWN_DUP2, file, number) for number, file in enumerate(files)]
        pid = os.posix_spawnp(command.words[0], command.words, os.environ, file_actions=actions)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sizes = [os.fstat(file).st_size for file in files]
        out = os.pread(files[1], MAX_OUTPUT_BYTES, 0)
        err = os.pread(files[2], MAX_OUTPUT_BYTES, max(0, sizes[2] - MAX_OUTPUT_BYTES))
    except (OSError, UnicodeError) as error:
        return Ran(127, "", f"{command.words[0]}: {error}")
    finally:
        for file in files:
            os.close(file)
    return Ran(code, *(text.decode("utf-8", errors="surrogateescape").rstrip("\n") for text in (out, err)))
