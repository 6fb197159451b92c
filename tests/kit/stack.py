"""A whole Airlock for tests, as a person runs it: ``up`` in a home of its own, goals by the command line and by REST, ``down`` at the end.

One Airlock an engine serves all tests of a run, in whatever process they are: the first that needs it brings it up, the last takes it down.
Tests use it side by side; one that fills, stops or restarts it asks for it alone.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from include.local.rest import Airflow
from include.settings import ROOT, load
from tests.kit.scale import patience
from tests.kit.servers import free_port

TESTS = ROOT / "tests"
PLAYBOOKS = (TESTS / "ui" / "playbooks", TESTS / "e2e" / "playbooks")
CAPACITY = 8
"""Workers at once in the stack on bubblewrap."""
CANARY = "sk-canary-of-the-end-to-end-tests"
GIT = ("git", "-c", "user.name=E2E", "-c", "user.email=e2e@airlock.invalid", "-c", "commit.gpgsign=false")


def docker_answers() -> bool:
    """Say whether a Docker engine answers here."""
    return shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


class Stack:
    """One running Airlock and what a test does with it."""

    def __init__(self, home: Path, engine: str, port: int) -> None:
        self.home, self.engine = home, engine
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "AIRFLOW", "ANTHROPIC"))},
            "AIRLOCK_HOME": str(home),
            "AIRLOCK_ENGINE": engine,
            "AIRLOCK_PLAYBOOKS": ":".join(map(str, (home / "playbooks", *PLAYBOOKS))),
            "AIRLOCK_API_PORT": str(port),  # several stacks may run on this machine
            "AIRLOCK_NODE_CAPACITY": str(CAPACITY),
        }

    def run(self, *arguments: str, seconds: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "include.local", *arguments]
        return subprocess.run(
            command, env=self.environment | variables, cwd=ROOT, capture_output=True, text=True, timeout=patience(seconds), check=False
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def submit(self, text: str, repository: Path | str, *more: str) -> str:
        """Submit by the command line; returns the goal run."""
        return str(self.json("goal", "submit", text, "--repo", str(repository), *more)["run"])

    def wait(self, run: str, seconds: int = 240) -> dict[str, Any]:
        """Wait for a goal's end; returns it as ``goal wait --json`` prints it."""
        done = self.run("goal", "wait", run, "--timeout", str(int(patience(seconds))), "--json", seconds=seconds + 30)
        assert done.stdout, done.stderr
        ended: dict[str, Any] = json.loads(done.stdout)
        assert ended["ended_at"], f"{run} did not end: {ended}\n{done.stderr}"
        return ended

    def show(self, run: str) -> dict[str, Any]:
        return self.json("goal", "show", run)  # type: ignore[no-any-return]

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(load(self.home).dsn("owner"), row_factory=dict_row) as connection:
            return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]

    @property
    def airflow(self) -> Airflow:
        return Airflow(load(self.home))

    def steps(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Airflow's task instances of a run, by id."""
        answer = self.airflow._ask("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances")
        return {step["task_id"]: step for step in answer.json().get("task_instances", [])}

    def steps_when_ended(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """As ``steps``, but empty until the run has ended."""
        row = self.airflow.run(dag, run)
        return self.steps(dag, run) if row and row["state"] in ("success", "failed") else {}

    def step_log(self, dag: str, run: str, step: str, try_number: int = 1) -> str:
        """The log of a step, as text."""
        answer = self.airflow._ask("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances/{step}/logs/{try_number}")
        return json.dumps(answer.json(), ensure_ascii=False)


def repository(source: Path, target: Path) -> Path:
    """A git repository of a folder's files, branch main."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run([*GIT, *arguments], cwd=target, check=True, capture_output=True)
    return target


# -- one stack an engine, for all processes of a test run ----------------------------------------------------------------


class Shared:
    """What the processes of a test run know of one stack: ``state.json`` in a folder of the run's, under a lock.

    Args:
        folder: of this stack, in a folder that only this test run uses.
        engine: ``docker`` or ``bubblewrap``.
    """

    def __init__(self, folder: Path, engine: str) -> None:
        self.folder, self.engine = folder, engine
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[dict[str, Any]]:
        """Hold the state; what the block changes in it is kept."""
        with (self.folder / "lock").open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            path = self.folder / "state.json"
            state = json.loads(path.read_text()) if path.exists() else {}
            try:
                yield state
            finally:
                path.write_text(json.dumps(state))

    def join(self, **variables: str) -> Stack:
        """Bring the stack up, or find it up, and count as one who uses it."""
        with self.locked() as state:
            if "failed" in state:
                pytest.fail(f"up failed in another process of this run: {state['failed']}")
            if not state.get("users"):
                home = Path(tempfile.mkdtemp(prefix=f"airlock-e2e-{self.engine}-"))
                state |= {"users": 0, "home": str(home), "port": free_port()}
                self._up(Stack(home, self.engine, state["port"]), state, variables)
            state["users"] += 1
            return Stack(Path(state["home"]), self.engine, state["port"])

    def _up(self, stack: Stack, state: dict[str, Any], variables: dict[str, str]) -> None:
        (stack.home / "playbooks").mkdir()
        slow_demo(stack.home / "playbooks")
        up = stack.run("up", "--offline", seconds=180, **variables)
        if up.returncode:
            state["failed"] = (up.stdout + up.stderr)[-3000:]
            stack.run("down")
            pytest.fail(f"up failed: {state['failed']}")

    def leave(self, stack: Stack) -> None:
        """Use it no more; the last one takes it down and looks at what it leaves behind."""
        with self.locked() as state:
            state["users"] -= 1
            if state["users"] == 0:
                _down(stack)


def _down(stack: Stack) -> None:
    leftovers = stack.run("doctor", "--leftovers")
    ties = stack.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0]["deadlocks"]
    down = stack.run("down")
    if "AIRLOCK_TEST_KEEP_LOGS" in os.environ:
        kept = Path(os.environ["AIRLOCK_TEST_KEEP_LOGS"]) / stack.engine
        shutil.copytree(stack.home, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("postgres", "run"))
    shutil.rmtree(stack.home, ignore_errors=True)
    assert ties == 0, f"{ties} times two transactions waited for each other (docs/architecture.md tells the order of locks)"
    assert leftovers.returncode == 0, leftovers.stdout
    assert down.returncode == 0, down.stdout + down.stderr


SLOW_S = 20
"""How long the first worker of the browser's demo thinks at its end: a page takes some seconds to load, and its work is to be seen live."""
SLOWLY = "Take your time, somebody watches."
"""Stands in the text of a goal that is to be played slowly."""


def slow_demo(folder: Path) -> None:
    """Write the demo's playbook with a slow first worker, for goals that say so; it is looked through before the demo's own."""
    book = yaml.safe_load((ROOT / "include" / "local" / "playbooks" / "demo.yaml").read_text())
    book["goal_matches"] = re.escape(SLOWLY)
    book["tasks"]["rate"][0][-1]["delay_s"] = SLOW_S
    (folder / "slow_demo.yaml").write_text(yaml.safe_dump(book))


def _folder(request: pytest.FixtureRequest) -> Path:
    """The folder of this test run; its name is the same in all its processes."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    return Path(tempfile.gettempdir()) / f"airlock-stacks-{run}"


@pytest.fixture(scope="session")
def docker_stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Airlock on a Docker engine."""
    if not docker_answers():
        pytest.skip("no Docker engine answers: the container rung is not tested here")
    yield from _member(Shared(_folder(request) / "docker", "docker"))


@pytest.fixture(scope="session")
def bubblewrap_stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Airlock on bubblewrap, started with a model key that the offline model leaves unused."""
    yield from _member(Shared(_folder(request) / "bubblewrap", "bubblewrap"), ANTHROPIC_API_KEY=CANARY)


def _member(shared: Shared, **variables: str) -> Iterator[Stack]:
    stack = shared.join(**variables)
    yield stack
    shared.leave(stack)


@contextmanager
def using(stack: Stack, how: int) -> Iterator[Stack]:
    """Use a stack beside others (``LOCK_SH``) or alone (``LOCK_EX``) while the block lasts."""
    with (stack.home / "in-use.lock").open("a") as file:
        fcntl.flock(file, how)
        yield stack


@pytest.fixture
def containers(docker_stack: Stack) -> Iterator[Stack]:
    """Airlock on a Docker engine, beside other tests."""
    with using(docker_stack, fcntl.LOCK_SH) as stack:
        yield stack


@pytest.fixture
def containers_alone(docker_stack: Stack) -> Iterator[Stack]:
    """Airlock on a Docker engine, with no other test at work in it."""
    with using(docker_stack, fcntl.LOCK_EX) as stack:
        yield stack


@pytest.fixture
def processes(bubblewrap_stack: Stack) -> Iterator[Stack]:
    """Airlock on bubblewrap, beside other tests."""
    with using(bubblewrap_stack, fcntl.LOCK_SH) as stack:
        yield stack


@pytest.fixture
def processes_alone(bubblewrap_stack: Stack) -> Iterator[Stack]:
    """Airlock on bubblewrap, with no other test at work in it."""
    with using(bubblewrap_stack, fcntl.LOCK_EX) as stack:
        yield stack
