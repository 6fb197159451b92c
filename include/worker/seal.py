"""``worker.pyz seal POLICY COMMAND…``: give up every right that the command does not need, then become it.

Tests, and git in a tree that tests may write, are other people's code. They run under the worker's uid, so without a seal they
could read its keys, speak to its relay and signal it. Whoever is sealed keeps: the listed paths, loopback sockets, processes, pipes. The
environment is the caller's business (child.py builds it from nothing). Runs in a process of its own, because Python must not run
between fork and exec of a program with threads.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import NamedTuple

from include.worker import landlock, seccomp, strict_json, syscalls
from include.worker.errors import NotSealed

SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
REFUSED_EXIT = 125
PIPE = 3
"""The descriptor of the one pipe that a sealed command may have beside its standard streams."""
GIB = 1024**3


class Policy(NamedTuple):
    """What a sealed command may reach, beside the system's own programs and libraries.

    ``cpu_s`` is the most processor time of one process in seconds; ``pipe`` a descriptor that it gets as ``PIPE`` (-1: none).
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    cpu_s: int = 3600
    pipe: int = -1


def strength() -> str:
    """Say in one line what a seal is made of here, for the log of the attempt."""
    version = landlock.abi()
    if version == 0:
        lacks = "this kernel or container offers no Landlock, so sealed tests can read every file of the sandbox (no key is left there)"
        return f"seccomp only: {lacks}"
    return f"Landlock ABI {version} and seccomp"


def apply(policy: Policy) -> None:
    """Seal this process for good.

    Raises:
        NotSealed: a part that must hold does not; nothing may be run.
    """
    try:
        _limit(policy.cpu_s)
        syscalls.prctl(syscalls.SET_NO_NEW_PRIVS, 1)
        if version := landlock.abi():
            python = [sys.prefix, sys.base_prefix, os.path.realpath(sys.executable)]
            landlock.restrict(version, [*SYSTEM, *python, *policy.read], [*DEVICES, *policy.write])
        syscalls.drop_capabilities()
        seccomp.restrict()
    except (OSError, ValueError) as error:
        raise NotSealed(f"the command was not run, because it could not be sealed: {error}") from error


def become(policy: str) -> None:
    """Seal this process as told by the JSON of a policy, with nothing open but its standard streams and the pipe that it may have.

    Raises:
        NotSealed: a part that must hold does not; nothing may be run.
    """
    given = Policy(**strict_json.loads(policy.encode()))
    if given.pipe >= 0:
        os.set_inheritable(os.dup2(given.pipe, PIPE), True)
    os.closerange(PIPE if given.pipe < 0 else PIPE + 1, 4096)
    apply(given)


def main(arguments: list[str]) -> int:
    """Seal, then become the command. Returns only if that fails (125: not sealed, 127: no such command)."""
    try:
        become(arguments[0])
        os.execvpe(arguments[1], arguments[1:], os.environ)
    except NotSealed as error:
        print(error, file=sys.stderr)
        return REFUSED_EXIT
    except OSError as error:
        print(f"{arguments[1]}: {error}", file=sys.stderr)
        return 127


def _limit(cpu_s: int) -> None:
    wanted = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: 4 * GIB,
        resource.RLIMIT_FSIZE: GIB,
        resource.RLIMIT_NPROC: 1024,  # counts every process of the uid, so the sandbox's own limit must be the tight one
        resource.RLIMIT_NOFILE: 512,
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
