"""Fixtures of the worker's tests."""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from include.sandbox import toolbox as toolbox_module
from include.settings import Settings
from include.worker.paths import Paths
from tests.worker.sandbox import Attempt, lay_out


@pytest.fixture(scope="session")
def toolbox() -> Iterator[Path]:
    """A freshly built toolbox, outside of /tmp: sealed children may reach /tmp."""
    home = Path(tempfile.mkdtemp(prefix="airlock-toolbox-", dir="/var/tmp"))
    home.chmod(0o755)
    yield toolbox_module.build(Settings(home=home))
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def apart() -> Iterator[Callable[..., Any]]:
    """Calls a function in a process of its own: ``apart(function, argument, …)``.

    A sealed run ends every process that has appeared below its caller meanwhile; below this one PostgreSQL starts some.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda do, *given, **named: pool.submit(do, *given, **named).result()


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder outside of /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="airlock-worker-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sandbox(place: Path, toolbox: Path) -> Callable[..., Paths]:
    """Lays out a sandbox's folders: ``sandbox(files=…, links=…)``."""
    return lambda **given: lay_out(place, toolbox, **given)


@pytest.fixture
def attempt(sandbox: Callable[..., Paths]) -> Iterator[Callable[..., Attempt]]:
    """Makes an attempt with scripted turns: ``attempt([turn, …], files=…, timing=…, capabilities=…)``; ended at the test's end."""
    made: list[Attempt] = []

    def make(turns: list[Any], *, files: dict[str, str] | None = None, links: dict[str, str] | None = None, **given: Any) -> Attempt:
        made.append(Attempt(sandbox(files=files, links=links), turns, **given))
        return made[-1]

    yield make
    for each in made:
        each.close()
