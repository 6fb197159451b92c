"""Servers of a benchmark's own: PostgreSQL (fsync on) and Valkey (AOF) in a home that goes away with them, and processes beside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from include import settings as settings_module
from include.database.migrate import create_roles_and_databases, migrate
from include.errors import Unavailable
from include.local import health, postgres, runtime, valkey
from include.settings import ROOT, Settings
from include.tasks.rules import TRANSITIONS

KEPT = ("AIRLOCK_PG_BIN", "AIRLOCK_VALKEY_BIN", "AIRLOCK_IMAGE", "AIRLOCK_ENGINE", "AIRLOCK_DOCKER_HOST")
"""Settings of the caller that hold for a benchmark too."""


def wait_for(what: str, check: Callable[[], object], seconds: float = 120) -> None:
    """Ask every 50 ms until it is true.

    Raises:
        Unavailable: it did not become true in time; the message names it.
    """
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise Unavailable(f"Waited {seconds:g} s in vain until {what}. Run the benchmark again on a quieter machine.")
        time.sleep(0.05)


class Servers:
    """Settings of a temporary home whose servers run, and the processes that were started beside them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Start a program; its output goes to ``home/logs/<name>.log``; it is ended with the servers."""
        with (self.settings.logs_dir / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._children.append(child)
        return child

    def python(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start one of our own modules: ``python("broker", "-m", "include.broker", "--agent", "jarvis")``."""
        return self.start(name, [sys.executable, *arguments])

    def log(self, name: str) -> str:
        """Read what a program has said so far."""
        return (self.settings.logs_dir / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """End everything that was started, last first."""
        for child in reversed(self._children):
            if child.poll() is None:
                child.send_signal(signal.SIGINT)
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


@contextmanager
def temporary_servers(**postgres_options: str) -> Iterator[Servers]:
    """Run PostgreSQL and Valkey as an installation has them, in a folder of their own; this process's settings point to it.

    Args:
        postgres_options: further options of the server, for example ``shared_buffers="256MB"``.
    """
    before = dict(os.environ)
    home = Path(tempfile.mkdtemp(prefix="airlock-bench-"))
    for name in [name for name in os.environ if name.startswith("AIRLOCK_") and name not in KEPT]:
        del os.environ[name]
    os.environ["AIRLOCK_HOME"] = str(home)
    settings_module.settings.cache_clear()
    for folder in ("logs", "run", "valkey"):
        (home / folder).mkdir(mode=0o700)
    runtime.choose(home)
    servers = Servers(settings_module.settings())
    try:
        _start(servers, postgres_options)
        yield servers
    finally:
        servers.close()
        shutil.rmtree(home, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)
        settings_module.settings.cache_clear()


def _start(servers: Servers, postgres_options: dict[str, str]) -> None:
    settings, home = servers.settings, servers.settings.home
    binaries = postgres.find_binaries(settings.pg_bin)
    postgres.initialise(binaries, home / "postgres", settings.pg_password)
    servers.start("postgres", postgres.command(binaries, home / "postgres", settings.pg_port, **postgres_options))
    valkey.write_acl(home / "users.acl", settings.valkey_password)
    binary = valkey.find_binary(settings.valkey_bin)
    servers.start("valkey", valkey.command(binary, home / "valkey", settings.valkey_port, home / "users.acl"))
    wait_for("PostgreSQL answers", lambda: health.postgres(settings))
    wait_for("Valkey answers", lambda: health.valkey(settings))
    create_roles_and_databases(health.admin_dsn(settings), settings, ("airlock",))
    migrate(settings, TRANSITIONS)
