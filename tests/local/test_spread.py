"""Tests of a group run in one process, in their order: a contract with pytest and pytest-xdist, whose own groups pytest 9.2 broke silently."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.kit import run_folder

pytestmark = pytest.mark.slow  # whole runs of pytest

HOOKS = """
import pytest
from tests.kit import run_folder, spread

@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session):
    spread.tell(session.items)

def pytest_xdist_make_scheduler(config, log):
    return spread.Groups(config, log)
"""
TESTS = """
import os, pathlib, time
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    time.sleep(0.05)
    pathlib.Path("ran", f"{time.monotonic():.6f} {os.environ['PYTEST_XDIST_WORKER']} {number}").touch()
"""
MARK = """
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group("ABC"[item.callspec.params["number"] % 3]))
"""


def ran(folder: Path, hooks: str) -> dict[str, list[int]]:
    """The numbers that each process ran, in its order."""
    (folder / "ran").mkdir(parents=True)
    (folder / "conftest.py").write_text(f"import pytest\n{hooks}{MARK}")
    (folder / "test_them.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), run_folder.VARIABLE: str(folder)}
    done = subprocess.run(
        [*command, "--rootdir", str(folder), "."], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "12 passed" in done.stdout, done.stdout + done.stderr
    found: dict[str, list[int]] = {}
    for name in sorted(path.name for path in (folder / "ran").iterdir()):
        found.setdefault(name.split()[1], []).append(int(name.split()[2]))
    return found


def pieces(numbers: list[int]) -> list[tuple[int, int]]:
    """Groups as they came, and how many of each ran without another between."""
    return [(group, len(list(them))) for group, them in groupby(numbers, key=lambda number: number % 3)]


def test_a_group_runs_in_one_process_in_its_order(tmp_path: Path) -> None:
    found = ran(tmp_path / "ours", HOOKS)
    assert len(found) == 2
    assert sorted(piece for numbers in found.values() for piece in pieces(numbers)) == [(0, 4), (1, 4), (2, 4)]
    for numbers in found.values():
        for group in range(3):
            mine = [number for number in numbers if number % 3 == group]
            assert mine == sorted(mine)


def test_control_the_plugins_own_groups_are_torn(tmp_path: Path) -> None:
    """When this fails, pytest-xdist has caught up: then ``tests/kit/spread.py`` can go."""
    found = ran(tmp_path / "theirs", "")
    assert any(len({number % 3 for number in numbers}) == 3 for numbers in found.values()) and len(found) == 2
    assert len([piece for numbers in found.values() for piece in pieces(numbers)]) > 3
