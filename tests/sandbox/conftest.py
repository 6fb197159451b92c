"""A node for the tests: real warden and relay processes on a home of their own, both engines, and a program that the test writes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import dict_row

from include import settings as settings_module
from include.leases import service as leases
from include.leases.models import Grant, Subject
from include.sandbox import folders
from include.settings import Settings
from tests.conftest import ROOT, wait_until
from tests.kit import build
from tests.kit.build import Granted
from tests.kit.scale import limit, patience

COMMIT = "a" * 40
CALM_S = int(limit(8))
"""A node's heartbeat timeout here, in seconds: PostgreSQL is young in a test run, and nothing expires for so long after its start."""
UNWATCHED_S = int(limit(60))


def docker_answers() -> bool:
    return subprocess.run(["docker", "image", "inspect", "airlock/worker:latest"], capture_output=True, check=False).returncode == 0


class Node:
    """Warden, relay, and the rows that a sandbox needs."""

    def __init__(self, settings: Settings, engine: str) -> None:
        self.settings, self.engine = settings, engine
        self.root = folders.root(settings)
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.goal_run = f"g{secrets.token_hex(6)}"

    # -- processes --

    def spawn(self, name: str, module: str) -> subprocess.Popen[bytes]:
        with (self.settings.home / f"{name}.log").open("ab") as log:
            self.children[name] = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, stdout=log, stderr=log, env=dict(os.environ))
        return self.children[name]

    def start_warden(self) -> None:
        self.spawn("warden", "include.sandbox.warden")
        wait_until(f"the warden serves\n{self.log('warden')}", self.serves, 60)

    def start_relay(self) -> None:
        self.spawn("relay", "include.sandbox.relay_start")

    def serves(self) -> bool:
        assert self.children["warden"].poll() is None, self.log("warden")
        try:
            return self.call("GET", "/containers/airlock-none/json").status_code == 404
        except httpx.HTTPError:
            return False

    def log(self, name: str) -> str:
        path = self.settings.home / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def kill(self, name: str) -> None:
        child = self.children.pop(name)
        child.send_signal(signal.SIGKILL)
        child.wait()

    @contextmanager
    def halted(self, name: str) -> Iterator[None]:
        """A process that does nothing while the block lasts, however long that takes on a busy machine."""
        child = self.children[name]
        child.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            child.send_signal(signal.SIGCONT)  # nothing happens to one that was killed meanwhile

    def end_all(self) -> None:
        """Revoke what lives and wait for the warden to end it."""
        if "warden" not in self.children:
            self.start_warden()
        self.do("UPDATE leases SET revoked_at = clock_timestamp(), grace = '0 s' WHERE ended_at IS NULL")
        wait_until("all leases end", lambda: self.one("SELECT 1 AS one WHERE NOT EXISTS (SELECT FROM leases WHERE ended_at IS NULL)"), 60)

    def stop(self) -> None:
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            child.wait(patience(15))

    # -- the warden's API --

    def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.HTTPTransport(uds=str(self.settings.warden_socket))
        with httpx.Client(transport=transport, base_url="http://warden/v1.41", timeout=patience(60)) as client:
            return client.request(method, path, **more)

    def run(self, name: str) -> None:
        assert self.call("POST", "/containers/create", params={"name": name}).status_code == 201
        answer = self.call("POST", f"/containers/{name}/start")
        assert answer.status_code == 204, (answer.text, self.log("warden"))

    # -- rows --

    def owner(self) -> psycopg.Connection[dict[str, Any]]:
        return psycopg.connect(self.settings.dsn("owner"), row_factory=dict_row, autocommit=True)

    def one(self, query: str, *values: Any) -> dict[str, Any] | None:
        with self.owner() as connection:
            return connection.execute(query, values).fetchone()

    def do(self, query: str, *values: Any) -> None:
        with self.owner() as connection:
            connection.execute(query, values)

    def seed(self) -> None:
        with self.owner() as connection:
            build.ground(connection)
            build.run(connection, build.goal(connection, "goal_sample"), self.goal_run, "run1")

    def lease(self, kind: str = "work", seconds: float = limit(60)) -> tuple[str, str]:
        """Grant a lease whose end is at once, without a grace; returns its id and the sandbox's name."""
        with self.owner() as connection, connection.transaction():
            if kind == "work":
                task = build.task(connection, self.goal_run, f"t{secrets.token_hex(3)}")
                made: Granted | Grant = build.attempt(connection, task, build.TERMS._replace(seconds=seconds), COMMIT)
            else:
                connection.execute("UPDATE nodes SET heartbeat_at = clock_timestamp()")  # also where the test has killed its warden
                made = leases.grant_verify(connection, Subject(self.goal_run, COMMIT), 7, "ti")
            terms = "spec = '{\"test_timeout_s\": 7}', grace = '0 s', expires_at = clock_timestamp() + make_interval(secs => %s)"
            connection.execute(f"UPDATE leases SET {terms} WHERE id = %s", [seconds, made.lease])
        return str(made.lease), made.sandbox

    def revoke(self, lease: str) -> None:
        self.do("UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = 'a test' WHERE id = %s", lease)

    def ended(self, lease: str, seconds: float = 40) -> dict[str, Any]:
        """Wait for the end; returns the evidence."""
        wait_until(
            f"{lease} ends\n{self.log('warden')}",
            lambda: self.one("SELECT 1 AS one FROM leases WHERE id=%s AND ended_at IS NOT NULL", lease),
            seconds,
        )
        row = self.one("SELECT * FROM evidence WHERE lease = %s", lease)
        assert row is not None
        return row

    # -- the program inside --

    def program(self, text: str) -> None:
        """What worker.pyz does; a new text is a new toolbox."""
        self.settings.toolbox_dir.mkdir(exist_ok=True)
        (self.settings.toolbox_dir / "worker.pyz").write_text(text)


@pytest.fixture(scope="module", params=["docker", "bubblewrap"])
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "docker" and not docker_answers():
        pytest.skip("no Docker engine with the worker image here")
    return str(request.param)


@contextmanager
def own_home(servers: Settings, engine: str, timeout_s: int = CALM_S) -> Iterator[Settings]:
    """A home folder and a database of their own on the session's servers, with a heartbeat timeout in seconds."""
    home, database = Path(tempfile.mkdtemp(prefix="airlock-node-")), f"t_{secrets.token_hex(6)}"
    home.chmod(0o755)
    (home / "runtime.json").write_text((servers.home / "runtime.json").read_text())
    admin = os.environ["AIRLOCK_TEST_ADMIN_DSN"]
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} TEMPLATE pristine OWNER airlock_owner")
    before = os.environ["AIRLOCK_HOME"]
    ours = {"AIRLOCK_ENGINE": engine, "AIRLOCK_PG_DATABASE": database, "AIRLOCK_HEARTBEAT_TIMEOUT_S": str(timeout_s)}
    ours["AIRLOCK_UNWATCHED_S"] = str(UNWATCHED_S)
    os.environ |= {"AIRLOCK_HOME": str(home), **ours}
    settings_module.settings.cache_clear()
    try:
        yield settings_module.settings()
    finally:
        os.environ["AIRLOCK_HOME"] = before
        for name in ours:
            del os.environ[name]
        settings_module.settings.cache_clear()
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
        subprocess.run(["rm", "-rf", "--one-file-system", str(home)], check=False)


@pytest.fixture(scope="module")
def module_node(servers: Settings, engine: str) -> Iterator[Node]:
    """A node with a running warden and relay, and nothing left of it afterwards."""
    with own_home(servers, engine) as mine:
        node = Node(mine, engine)
        try:
            mine.bundles_dir.mkdir()
            (mine.bundles_dir / f"{COMMIT}.bundle").write_bytes(b"not really a bundle")
            node.seed()
            node.program("")
            node.start_relay()
            node.start_warden()
            yield node
            node.end_all()
        finally:
            node.stop()


@pytest.fixture
def node(module_node: Node) -> Iterator[Node]:
    """The module's node, brought back to: warden and relay run, no lease lives."""
    module_node.program("print('hello from inside')")
    for name, start in (("relay", module_node.start_relay), ("warden", module_node.start_warden)):
        if name not in module_node.children:
            start()
    yield module_node
    module_node.end_all()


def timed(act: Any) -> float:
    """Milliseconds that something took."""
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1000
