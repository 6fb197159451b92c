"""Real servers for the tests: one PostgreSQL and one Valkey per session, one fresh database per test that asks for it."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis

from include import settings as settings_module
from include.local import postgres, valkey
from include.settings import ROOT, Settings
from include.tasks.rules import TRANSITIONS
from tests.kit.scale import patience
from tests.kit.waiting import wait_until


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def servers() -> Iterator[Settings]:
    """A home folder with PostgreSQL and Valkey running; the environment points to it."""
    from include.database.migrate import create_roles_and_databases, migrate  # alembic: a second of CPU, also where no test runs

    home = Path(tempfile.mkdtemp(prefix="airlock-test-"))
    password = secrets.token_hex(12)
    stored = {
        "pg_port": free_port(),
        "valkey_port": free_port(),
        "pg_password": password,
        "valkey_password": password,
        "api_password": password,
    }
    (home / "runtime.json").write_text(json.dumps(stored))
    os.environ["AIRLOCK_HOME"] = str(home)
    settings_module.settings.cache_clear()
    settings = settings_module.load(home)
    binaries = postgres.find_binaries(settings.pg_bin)
    postgres.initialise(binaries, home / "postgres", password)
    (home / "valkey").mkdir()
    valkey.write_acl(home / "users.acl", password)
    log = (home / "servers.log").open("wb")
    children = [
        subprocess.Popen(postgres.command(binaries, home / "postgres", settings.pg_port, fsync="off"), stdout=log, stderr=log),
        subprocess.Popen(
            valkey.command(valkey.find_binary(settings.valkey_bin), home / "valkey", settings.valkey_port, home / "users.acl"),
            stdout=log,
            stderr=log,
        ),
    ]
    admin = f"postgresql://postgres:{password}@127.0.0.1:{settings.pg_port}/postgres"

    def up() -> bool:
        try:
            psycopg.connect(admin).close()
            return bool(redis.Redis.from_url(settings.valkey_url("broker")).ping())
        except (psycopg.OperationalError, redis.ConnectionError):
            return False

    wait_until(f"PostgreSQL and Valkey start, see {home}/servers.log", up)
    create_roles_and_databases(admin, settings)
    migrate(settings, TRANSITIONS)
    with psycopg.connect(admin, autocommit=True) as connection:  # nobody connects to this copy, so it can be copied at any time
        connection.execute("CREATE DATABASE pristine TEMPLATE airlock OWNER airlock_owner")
    os.environ["AIRLOCK_TEST_ADMIN_DSN"] = admin
    yield settings
    children[0].send_signal(signal.SIGINT)
    children[1].terminate()
    for child in children:
        child.wait(patience(20))
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def fresh_database() -> Iterator[str]:
    """Copy the migrated database and give the copy's name; it goes away with the block. The fixture ``servers`` must be there."""
    admin = os.environ["AIRLOCK_TEST_ADMIN_DSN"]
    name = f"t_{secrets.token_hex(6)}"
    with psycopg.connect(admin, autocommit=True) as connection:
        strategy = "STRATEGY FILE_COPY" if connection.info.server_version >= 150_000 else ""  # half the CPU, and nothing here is synced
        connection.execute(f"CREATE DATABASE {name} TEMPLATE pristine OWNER airlock_owner {strategy}")  # type: ignore[call-overload]
    yield name
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def settings_of(name: str) -> Iterator[Settings]:
    """Make this process use a database while the block lasts."""
    os.environ["AIRLOCK_PG_DATABASE"] = name
    settings_module.settings.cache_clear()
    yield settings_module.settings()
    del os.environ["AIRLOCK_PG_DATABASE"]
    settings_module.settings.cache_clear()


@pytest.fixture
def settings(servers: Settings) -> Iterator[Settings]:
    """Settings with a fresh copy of the migrated database, for one test; ``include.settings.settings()`` gives the same."""
    with fresh_database() as name, settings_of(name) as mine:
        yield mine
    streams = redis.Redis.from_url(servers.valkey_url("broker"))
    for key in streams.scan_iter("*"):
        streams.delete(key)


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of foreign test inputs (setting ``corpora``, else beside the project); a test without it says so and skips."""
    folder = Path(os.environ.get("AIRLOCK_CORPORA") or ROOT.parent / "shared" / "corpora")
    if not (folder / "manifest.toml").exists():
        pytest.skip(f"no corpora at {folder}: set AIRLOCK_CORPORA")
    return folder
