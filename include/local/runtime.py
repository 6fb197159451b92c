"""What the first start decides and later starts keep: credentials and ports, in ``home/runtime.json`` (mode 0600)."""

from __future__ import annotations

import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from include.errors import BadInput
from include.local import modes
from include.settings import Settings, load

PORTS = {"pg_port": "PostgreSQL", "valkey_port": "Valkey", "api_port": "Airflow's UI", "offline_port": "the offline model"}
PASSWORDS = ("pg_password", "valkey_password", "api_password")


def is_free(port: int) -> bool:
    """Look whether a TCP port of loopback can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """Find a TCP port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def read(home: Path) -> dict[str, Any]:
    """Read the stored values; empty before the first start."""
    path = home / "runtime.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write(home: Path, values: dict[str, Any]) -> None:
    """Store the values in one step, readable by the owner only."""
    modes.make(home)
    new = home / ".runtime.json.new"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(values, file, indent=1)
    new.replace(home / "runtime.json")


def update(home: Path, **values: Any) -> None:
    """Change some stored values."""
    write(home, {**read(home), **values})


def choose(home: Path) -> list[str]:
    """Decide what is open: generate passwords once, keep each port that is free, choose another for each that is taken.

    Returns:
        One line a port that had to change, for a person.

    Raises:
        BadInput: a port that the environment names is taken.
    """
    settings = load(home)
    values = read(home)
    for name in PASSWORDS:
        if not getattr(settings, name):
            values[name] = secrets.token_urlsafe(18)
    notes = []
    for name in _own_ports(settings):
        port, note = _port(name, getattr(settings, name))
        values[name] = port
        notes += [note] if note else []
    write(home, values)
    return notes


def _own_ports(settings: Settings) -> list[str]:
    outer = {"pg_port": settings.pg_host, "valkey_port": settings.valkey_host}
    return [name for name in PORTS if outer.get(name, "127.0.0.1") == "127.0.0.1"]


def _port(name: str, wanted: int) -> tuple[int, str]:
    if wanted and is_free(wanted):
        return wanted, ""
    if wanted and os.environ.get(f"AIRLOCK_{name.upper()}"):
        raise BadInput(name, f"port {wanted} is taken", f"Set AIRLOCK_{name.upper()} to a free port, or unset it to have one chosen.")
    port = free_port()
    return port, f"Port {wanted} is taken: {PORTS[name]} uses {port}." if wanted else ""
