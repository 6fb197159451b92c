"""The one way in which our side runs git on its own account: an environment from nothing, no hooks, no filters of ours, no network."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Literal, NamedTuple

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
MAX_OUTPUT_BYTES = 4 * 1024 * 1024
"""What a limited git may print, and what is kept of it in memory: each of its honest answers is a list of at most 20,000 short lines."""
# Seconds, KiB, blocks of 512 bytes.
_LIMITED = ("/bin/sh", "-c", 'ulimit -t 5 && ulimit -v 1048576 && ulimit -f 524288 && exec git "$@"', "airlock-git")


class How(NamedTuple):
    """How git is run, where it is not run as usual.

    Attributes:
        environment: more variables.
        protocol: the one transport that this call may use: ``none`` or ``file``.
        allowed: exit codes that are answers.
        timeout_s: seconds after which it is killed.
        limited: bound processor time (5 s), memory (1 GiB), file size (256 MiB) and what it prints (4 MiB): for bytes that a worker chose.
    """

    environment: Mapping[str, str] = MappingProxyType({})
    protocol: Literal["none", "file"] = "none"
    allowed: tuple[int, ...] = (0,)
    timeout_s: float = 300
    limited: bool = False


AS_USUAL = How()
BY_FILE = How(protocol="file")


def run(
    args: Sequence[str],
    repository: Path | None = None,
    how: How = AS_USUAL,
    *,
    stdin: bytes | IO[bytes] = b"",
    into: IO[bytes] | None = None,
) -> bytes:
    """Run git and return what it printed.

    Args:
        args: after ``git``; each is one argument, no shell reads them.
        repository: ``--git-dir``; None for a call that needs none, or that names its own.
        stdin: bytes, or an open file whose descriptor git gets as it stands.
        into: an open file that gets what it prints; nothing is returned then.

    Raises:
        GitFailed: another exit code, a signal, or no end in time; the message holds what git said.
    """
    return finish(args, repository, how, stdin=stdin, into=into)[1]


def finish(
    args: Sequence[str],
    repository: Path | None = None,
    how: How = AS_USUAL,
    *,
    stdin: bytes | IO[bytes] = b"",
    into: IO[bytes] | None = None,
) -> tuple[int, bytes]:
    """Run git as ``run`` does, and return its exit code too."""
    source: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    with tempfile.TemporaryFile() as printed:
        try:
            done = subprocess.run(
                _command(args, repository, how),
                stdout=into or (printed if how.limited else subprocess.PIPE),
                stderr=subprocess.PIPE,
                env=_environment(how),
                cwd="/",
                timeout=how.timeout_s,
                check=False,
                **source,
            )
        except subprocess.TimeoutExpired:
            raise GitFailed(f"git {args[0]} did not end within {how.timeout_s:g} s") from None
        except OSError as error:
            raise _not_started(error) from error
        out = (done.stdout or b"") if into or not how.limited else _bounded(printed, args[0])
    if done.returncode not in how.allowed:
        said = done.stderr.decode(errors="replace").strip()[-2000:] or f"exit code {done.returncode}"
        failure = GitFailed(f"git {args[0]} failed: {said}")
        failure.add_note(out.decode(errors="replace")[-20_000:])
        raise failure
    return done.returncode, out


@contextmanager
def talk(args: Sequence[str], repository: Path, how: How) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Start a git that answers questions: yields its stdin and its stdout. It is killed at the end, and after ``how.timeout_s``."""
    command = _command(args, repository, how)
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment(how), cwd="/"
        )
    except OSError as error:
        raise _not_started(error) from error
    guard = threading.Timer(how.timeout_s, process.kill)
    guard.daemon = True
    guard.start()
    try:
        assert process.stdin and process.stdout
        yield process.stdin, process.stdout
    finally:
        guard.cancel()
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate()


def _bounded(printed: IO[bytes], command: str) -> bytes:
    printed.seek(0)
    out = printed.read(MAX_OUTPUT_BYTES + 1)
    if len(out) > MAX_OUTPUT_BYTES:
        raise GitFailed(f"git {command} printed more than {MAX_OUTPUT_BYTES} bytes")
    return out


def _not_started(error: OSError) -> GitFailed:
    return GitFailed(f"git could not be started: {error}. Install git 2.38 or newer.")


def last_output(error: GitFailed) -> str:
    """Return what a failed git printed, with what it complained of."""
    return "\n".join([*getattr(error, "__notes__", []), str(error)])


def text(args: Sequence[str], repository: Path | None = None, how: How = AS_USUAL) -> str:
    """Run git as ``run`` does, and return text without the newline at the end."""
    return run(args, repository, how).decode("utf-8", errors="surrogateescape").rstrip("\n")


def _environment(how: How) -> dict[str, str]:
    path = os.environ.get("PATH", os.defpath)
    return {**_ENVIRONMENT, "PATH": path, "GIT_ALLOW_PROTOCOL": how.protocol, **how.environment}


def _command(args: Sequence[str], repository: Path | None, how: How) -> list[str]:
    more = (f"protocol.{how.protocol}.allow=always",) if how.protocol != "none" else ()
    settings = [word for setting in (*_CONFIGURATION, *more, *(_SMALL_WINDOWS if how.limited else ())) for word in ("-c", setting)]
    command = [*settings, *([f"--git-dir={repository}"] if repository else []), *args]
    return [*(_LIMITED if how.limited else ("git",)), *command]
