"""The named fault points: each stands exactly once in the code, kills exactly once, and costs nothing where nobody asks for it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from include.faults import POINTS
from tests.conftest import ROOT

PLACED = re.compile(r"^\s+faults\.point\(\"([a-z.-]+)\"\)$", re.MULTILINE)


def placed() -> list[str]:
    return sorted(name for path in (ROOT / "include").rglob("*.py") for name in PLACED.findall(path.read_text()))


def test_each_point_stands_once_and_none_is_nameless() -> None:
    assert placed() == sorted(POINTS)
    calls = sum(path.read_text().count("faults.point(") for path in (ROOT / "include").rglob("*.py"))
    assert calls == len(POINTS)  # control: the pattern above has missed none


def passes(folder: Path | None, name: str) -> int:
    environment = {**os.environ, **({"AIRLOCK_FAULTS": str(folder)} if folder else {})}
    code = f"from include import faults; faults.point({name!r})"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=False).returncode


def test_an_armed_point_kills_once(tmp_path: Path) -> None:
    name = "merge.move.after"
    (tmp_path / name).touch()
    assert passes(None, name) == 0  # nobody asks for faults
    assert passes(tmp_path, "merge.move.before") == 0  # another point
    assert passes(tmp_path, name) == -signal.SIGKILL
    assert passes(tmp_path, name) == 0  # it was taken away
