"""One Airlock an engine for all tests of a run, in whatever process they are: the first that needs it brings it up, the last takes it down.

Tests use it side by side; one that fills, stops or restarts it asks for it alone. What the processes know of a stack stands in
``state.json`` in a folder of the run's, under a lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit import run_folder
from tests.kit.scale import patience
from tests.kit.servers import free_port
from tests.kit.stack import CANARY, Stack, docker_answers, write_playbooks

ENGINES = {"docker_stack": "docker", "bubblewrap_stack": "bubblewrap"}
"""Fixture -> the engine of its stack."""
GONE_S = 15
"""What nothing needs is gone by then."""


class Shared:
    """The stack of one engine.

    Args:
        engine: ``docker`` or ``bubblewrap``.
    """

    def __init__(self, engine: str) -> None:
        self.engine, self.folder = engine, run_folder.folder() / engine
        self.folder.mkdir(exist_ok=True)

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
        """Bring the stack up with these variables, or find it up."""
        with self.locked() as state:
            if "failed" in state:
                pytest.fail(f"up failed before in this run: {state['failed']}")
            if "home" not in state:
                state |= {"home": tempfile.mkdtemp(prefix=f"airlock-e2e-{self.engine}-"), "port": free_port()}
                self._up(state, variables)
            return self._stack(state)

    def _stack(self, state: dict[str, Any]) -> Stack:
        return Stack(Path(state["home"]), self.engine, state["port"])

    def _up(self, state: dict[str, Any], variables: dict[str, str]) -> None:
        stack = self._stack(state)
        write_playbooks(stack.home / "playbooks")
        up = stack.run("up", "--offline", seconds=180, **variables)
        if up.returncode:
            state["failed"] = (up.stdout + up.stderr)[-3000:]
            pytest.fail(f"up failed: {state['failed']}")

    def leave(self, test: str, users: set[str]) -> None:
        """Note that a test is over; the last of its users takes the stack down and looks at what it leaves behind."""
        with self.locked() as state:
            state["over"] = [*state.get("over", []), test]
            if "home" in state and users <= set(state["over"]):
                stack = self._stack(state)
                del state["home"]
                _down(stack)

    def abandon(self) -> None:
        """Take down what a run left up that was stopped before its end."""
        with self.locked() as state:
            if "home" in state:
                stack = self._stack(state)
                stack.run("down")
                shutil.rmtree(stack.home, ignore_errors=True)


def _down(stack: Stack) -> None:
    leftovers = _leftovers(stack)
    ties = stack.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")[0]["deadlocks"]
    down = stack.run("down")
    if "AIRLOCK_TEST_KEEP_LOGS" in os.environ:
        kept = Path(os.environ["AIRLOCK_TEST_KEEP_LOGS"]) / stack.engine
        shutil.copytree(stack.home, kept, dirs_exist_ok=True, ignore=shutil.ignore_patterns("postgres", "run"))
    shutil.rmtree(stack.home, ignore_errors=True)
    assert ties == 0, f"{ties} times two transactions waited for each other (docs/architecture.md tells the order of locks)"
    assert not leftovers, leftovers
    assert down.returncode == 0, down.stdout + down.stderr


def _leftovers(stack: Stack) -> str:
    """Say what stays although nothing needs it; what is only under way, such as a push, is gone soon."""
    end = time.monotonic() + patience(GONE_S)
    while (found := stack.run("doctor", "--leftovers")).returncode and time.monotonic() < end:
        time.sleep(1)
    files = [str(path) for path in stack.home.glob("mirrors/**/*.lock")]
    return f"{found.stdout}{found.stderr} {files}" if found.returncode else ""


# -- the ends of a run and of its tests, called by tests/conftest.py ------------------------------------------------------


def abandon() -> None:
    """Take down the stacks that are still up at the end of a run."""
    for engine in ENGINES.values():
        if (run_folder.folder() / engine).exists():
            Shared(engine).abandon()


def leave(item: pytest.Item) -> None:
    """Note that a test is over, for each stack that it uses."""
    for fixture, engine in ENGINES.items():
        users = {other.nodeid for other in item.session.items if fixture in getattr(other, "fixturenames", ())}
        if item.nodeid in users:
            Shared(engine).leave(item.nodeid, users)


# -- fixtures -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def docker_stack() -> Stack:
    """Airlock on a Docker engine."""
    if not docker_answers():
        pytest.skip("no Docker engine answers: the container rung is not tested here")
    return Shared("docker").join()


@pytest.fixture(scope="session")
def bubblewrap_stack() -> Stack:
    """Airlock on bubblewrap, started with a model key that the offline model leaves unused."""
    return Shared("bubblewrap").join(ANTHROPIC_API_KEY=CANARY)


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
