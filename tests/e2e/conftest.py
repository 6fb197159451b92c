"""The whole of Airlock, as a person runs it: `up` in a home of its own, goals by the command line and by REST, `down` at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.local.rest import Airflow
from include.settings import load
from tests.conftest import ROOT, free_port

collect_ignore = ["tiny"]  # a project that the goals work on
HERE = Path(__file__).parent
CAPACITY = 8
"""Workers at once in the stack on bubblewrap."""
TIMES = int(os.environ.get("AIRLOCK_PEOPLE_TIMES", "0"))
CANARY = "sk-canary-of-the-end-to-end-tests"
GIT = ("git", "-c", "user.name=E2E", "-c", "user.email=e2e@airlock.invalid", "-c", "commit.gpgsign=false")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=TIMES,
                     help="tests/e2e/test_people.py: play every action at every place so many times; 0: the short run.")  # fmt: skip
    parser.addoption("--cells", default="", help="tests/e2e/test_people.py: only those that this regular expression is found in.")
    parser.addoption("--people-json", default="", help="tests/e2e/test_people.py: write its table to this file as JSON.")


def docker_answers() -> bool:
    return shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


class Stack:
    """One running Airlock and what a test does with it."""

    def __init__(self, home: Path, engine: str) -> None:
        self.home = home
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "AIRFLOW", "ANTHROPIC"))},
            "AIRLOCK_HOME": str(home),
            "AIRLOCK_ENGINE": engine,
            "AIRLOCK_PLAYBOOKS": str(HERE / "playbooks"),
            "AIRLOCK_API_PORT": str(free_port()),  # several stacks may run on this machine
        }

    def run(self, *arguments: str, seconds: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "include.local", *arguments]
        return subprocess.run(
            command, env=self.environment | variables, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
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
        done = self.run("goal", "wait", run, "--timeout", str(seconds), "--json", seconds=seconds + 30)
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


def _stack(engine: str, capacity: int | None = None, **variables: str) -> Iterator[Stack]:
    home = Path(tempfile.mkdtemp(prefix=f"airlock-e2e-{engine}-"))
    stack = Stack(home, engine)
    if capacity:  # also when a test brings it up again
        stack.environment["AIRLOCK_NODE_CAPACITY"] = str(capacity)
    up = stack.run("up", "--offline", **variables)
    if up.returncode:
        stack.run("down")
        pytest.fail(f"up failed: {up.stdout}{up.stderr}")
    yield stack
    leftovers = stack.run("doctor", "--leftovers")
    ties = stack.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0]["deadlocks"]
    down = stack.run("down")
    if "AIRLOCK_TEST_KEEP_LOGS" in os.environ:
        shutil.copytree(home, os.environ["AIRLOCK_TEST_KEEP_LOGS"], dirs_exist_ok=True, ignore=shutil.ignore_patterns("postgres", "run"))
    shutil.rmtree(home, ignore_errors=True)
    assert ties == 0, f"{ties} times two transactions waited for each other (docs/architecture.md tells the order of locks)"
    assert leftovers.returncode == 0, leftovers.stdout
    assert down.returncode == 0, down.stdout + down.stderr


@pytest.fixture(scope="package")
def containers() -> Iterator[Stack]:
    """Airlock on a Docker engine."""
    if not docker_answers():
        pytest.skip("no Docker engine answers: the container rung is not tested here")
    yield from _stack("docker")


@pytest.fixture(scope="package")
def processes() -> Iterator[Stack]:
    """Airlock on bubblewrap, started with a model key that the offline model leaves unused."""
    yield from _stack("bubblewrap", CAPACITY, ANTHROPIC_API_KEY=CANARY)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tiny project with two passing tests."""
    return repository(HERE / "tiny", tmp_path / "tiny")
