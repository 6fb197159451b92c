"""The one way in which our side runs git: an environment from nothing, no hooks, no filters of ours, no network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from include.errors import GitFailed

LOCK_PATIENCE_MS = 3_000
"""How long git waits for another git's lock on a ref. A lock that is older was left by a killed process."""

IDENTITY = {"GIT_AUTHOR_NAME": "Airlock", "GIT_AUTHOR_EMAIL": "airlock@localhost",
            "GIT_COMMITTER_NAME": "Airlock", "GIT_COMMITTER_EMAIL": "airlock@localhost"}  # fmt: skip

_ENVIRONMENT = {
    "HOME": "/nonexistent", "LC_ALL": "C", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_REPLACE_OBJECTS": "1", "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none", "GIT_LITERAL_PATHSPECS": "1",
}  # fmt: skip
_CONFIGURATION = (
    "core.hooksPath=/dev/null", "core.attributesFile=/dev/null", "core.excludesFile=/dev/null", "core.fsmonitor=false",
    "core.protectNTFS=true", "core.protectHFS=true", "protocol.allow=never", "gc.auto=0", "maintenance.auto=false",
    "submodule.recurse=false", "core.fsync=reference,committed", f"core.filesRefLockTimeout={LOCK_PATIENCE_MS}",
    f"core.packedRefsTimeout={LOCK_PATIENCE_MS}",
)  # fmt: skip
_SMALL_WINDOWS = ("core.packedGitWindowSize=32m", "core.packedGitLimit=256m")  # a mirror larger than the memory limit stays readable
# Seconds, KiB, blocks of 512 bytes.
_LIMITED = ("/bin/sh", "-c", 'ulimit -t 5 && ulimit -v 1048576 && ulimit -f 524288 && exec git "$@"', "airlock-git")


def run(
    args: Sequence[str],
    repository: Path | None = None,
    *,
    stdin: bytes | IO[bytes] = b"",
    environment: dict[str, str] | None = None,
    protocol: str = "none",
    allowed: Sequence[int] = (0,),
    timeout_s: float = 300,
    limited: bool = False,
    into: IO[bytes] | None = None,
) -> bytes:
    """Run git and return what it printed.

    Args:
        args: after ``git``; each is one argument, no shell reads them.
        repository: ``--git-dir``; None for a call that needs none, or that names its own.
        stdin: bytes, or an open file whose descriptor git gets as it stands.
        environment: more variables.
        protocol: the one transport that this call may use: ``none`` or ``file``.
        allowed: exit codes that are answers.
        timeout_s: seconds after which it is killed.
        limited: bound processor time (5 s), memory (1 GiB) and file size (256 MiB): for bytes that a worker chose.
        into: an open file that gets what it prints; nothing is returned then.

    Raises:
        GitFailed: another exit code, a signal, or no end in time; the message holds what git said.
    """
    return finish(args, repository, stdin, environment, protocol, allowed, timeout_s, limited, into)[1]


def finish(
    args: Sequence[str],
    repository: Path | None = None,
    stdin: bytes | IO[bytes] = b"",
    environment: dict[str, str] | None = None,
    protocol: str = "none",
    allowed: Sequence[int] = (0,),
    timeout_s: float = 300,
    limited: bool = False,
    into: IO[bytes] | None = None,
) -> tuple[int, bytes]:
    """As ``run``, with the exit code."""
    command = _command(args, repository, protocol, limited)
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    try:
        done = subprocess.run(
            [*_LIMITED, *command[1:]] if limited else command,
            stdout=into or subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_ENVIRONMENT | {"PATH": os.environ.get("PATH", os.defpath), "GIT_ALLOW_PROTOCOL": protocol} | (environment or {}),
            cwd="/",
            timeout=timeout_s,
            check=False,
            **source,
        )
    except subprocess.TimeoutExpired:
        raise GitFailed(f"git {args[0]} did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise GitFailed(f"git could not be started: {error}. Install git 2.38 or newer.") from error
    if done.returncode not in allowed:
        said = done.stderr.decode(errors="replace").strip()[-2000:] or f"exit code {done.returncode}"
        failure = GitFailed(f"git {args[0]} failed: {said}")
        failure.add_note((done.stdout or b"").decode(errors="replace")[-20_000:])
        raise failure
    return done.returncode, done.stdout or b""


def last_output(error: GitFailed) -> str:
    """What a failed git printed, with what it complained of."""
    return "\n".join([*getattr(error, "__notes__", []), str(error)])


def text(args: Sequence[str], repository: Path | None = None, **options: object) -> str:
    """As ``run``, as text without the newline at the end."""
    return run(args, repository, **options).decode("utf-8", errors="surrogateescape").rstrip("\n")  # type: ignore[arg-type]


def _command(args: Sequence[str], repository: Path | None, protocol: str, limited: bool) -> list[str]:
    more = (f"protocol.{protocol}.allow=always",) if protocol != "none" else ()
    settings = [word for setting in (*_CONFIGURATION, *more, *(_SMALL_WINDOWS if limited else ())) for word in ("-c", setting)]
    return ["git", *settings, *([f"--git-dir={repository}"] if repository else []), *args]
