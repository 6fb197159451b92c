"""Starts the relay: reads the settings, and becomes a fresh process that never saw PostgreSQL's password.

``python -m include.sandbox.relay_start``. A program of its own, so that what the relay needs is loaded once, by the relay.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from include.settings import settings

_ENVIRONMENT: Final = frozenset(
    {"PATH", "LANG", "LC_ALL", "AIRLOCK_HOME", "AIRLOCK_STARTED_BY", "AIRLOCK_FAULTS"}
)  # no secret reaches it by another name


def main() -> None:
    """Leave the stream credential in a file of the owner's, and become the relay."""
    mine = settings()
    mine.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = mine.run_dir / "relay.password"
    secret.unlink(missing_ok=True)
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(mine.valkey_password)
    arguments = ["--control", str(mine.run_dir / "relay-control.sock"), "--valkey", f"{mine.valkey_host}:{mine.valkey_port}"]
    kept = {name: value for name, value in os.environ.items() if name in _ENVIRONMENT or name.startswith("PYTHON")}
    os.execve(sys.executable, [sys.executable, "-m", "include.sandbox.relay", *arguments, "--password-file", str(secret)], kept)


if __name__ == "__main__":
    main()
