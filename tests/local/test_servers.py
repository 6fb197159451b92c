"""PostgreSQL and Valkey under the supervisor: they start, come back after kill -9 with their rows, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from include.local import control, health, leftovers, runtime
from include.local.child import child_environment
from include.settings import Settings, load
from tests.conftest import wait_until

pytestmark = pytest.mark.slow  # supervisors and servers, started and killed

PROGRAM = """
from include.local import processes, supervisor
home = supervisor.load().home
lock = supervisor.take_lock(home)
supervisor.leftovers.stop(home)
servers = [process for process in processes.default_processes(supervisor.load()) if process.name in ("postgres", "valkey")]
supervisor.Supervisor(home, servers).run()
"""


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Settings]:
    for folder in ("run", "logs"):
        (tmp_path / folder).mkdir()
    runtime.choose(tmp_path)
    yield load(tmp_path)
    if (pid := control.supervisor_pid(tmp_path)) is not None:
        os.kill(pid, signal.SIGTERM)
        wait_until("the supervisor ends", lambda: control.supervisor_pid(tmp_path) is None, 30)
    leftovers.stop(tmp_path)


def start(own: Settings) -> subprocess.Popen[bytes]:
    environment = child_environment(own.home) | {leftovers.MARK: ""}
    for name in ("AIRLOCK_PG_DATABASE", "AIRLOCK_PG_PORT", "AIRLOCK_VALKEY_PORT"):
        environment.pop(name, None)
    supervisor = subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, start_new_session=True)
    wait_until("both servers are ready", lambda: control.state(own.home).state == "ready", 40)
    return supervisor


def pid(own: Settings, name: str) -> int:
    return control.state(own.home).process(name).pid or 0


def test_rows_survive_a_killed_server_and_a_killed_supervisor(own: Settings) -> None:
    supervisor = start(own)
    with psycopg.connect(health.admin_dsn(own)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS row")

    before = pid(own, "postgres")
    os.kill(before, signal.SIGKILL)
    wait_until("PostgreSQL is back", lambda: pid_of_ready(own) not in (None, before), 40)

    supervisor.kill()
    supervisor.wait()
    (own.home / "run" / "state.json").unlink()
    wait_until("PostgreSQL and Valkey went with their supervisor", lambda: leftovers.find(own.home) == [], 15)

    start(own)
    with psycopg.connect(health.admin_dsn(own)) as connection:
        assert connection.execute("SELECT row FROM kept").fetchone() == (42,)
    assert control.down(own.home, print) == 0
    assert leftovers.find(own.home) == [] and not health.postgres(own) and not health.valkey(own)


def pid_of_ready(own: Settings) -> int | None:
    server = control.state(own.home).process("postgres")
    return int(server.pid) if server.state == "ready" else None


def test_a_wrong_password_is_not_let_in(own: Settings) -> None:
    start(own)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(health.admin_dsn(own.model_copy(update={"pg_password": "wrong"})))
    assert not health.valkey(own.model_copy(update={"valkey_password": "wrong"})) and health.valkey(own)


def test_roles_and_databases_are_made_once(servers: Settings) -> None:
    from include.database.migrate import create_roles_and_databases

    create_roles_and_databases(os.environ["AIRLOCK_TEST_ADMIN_DSN"], servers)  # again: the fixture made them
