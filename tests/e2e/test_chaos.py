"""A short run of chaos, as a person starts it: everything is killed while goals are under way, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from include.faults import POINTS
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
UNREACHED = {"door.clear.before", "door.clear.after"}
"""Points that only a rework comes by: a run may need none."""


def chaos(*arguments: str) -> dict[str, Any]:
    """Run it; its home is its own, and gone afterwards."""
    command = [sys.executable, "-m", "include.local", "chaos", "--engine", "bubblewrap", "--json", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "AIRFLOW", "ANTHROPIC"))}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr[-4000:]
    print(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0)
    return found


def holds(found: dict[str, Any]) -> None:
    assert [bar for bar in found["judgement"]["bars"] if not bar["holds"]] == []
    for counters in (found["judgement"]["goals"], found["judgement"]["merges"]):
        assert counters["attempted"] == counters["acknowledged"] > 0
    assert {run["state"] for run in found["facts"]["runs"]} == {"COMPLETED"}, found["facts"]["runs"]
    assert found["events"] > 100 and found["facts"]["spent"]["calls"] > 10  # the bars had something to look at


def test_twelve_kills_over_four_goals() -> None:
    found = chaos("--kills", "12", "--goals", "4", "--seed", "12")
    holds(found)
    assert len([fault for fault in found["faults"] if fault["kind"] in ("kill", "wipe")]) >= 8


def test_each_fault_point_kills_once_and_the_end_is_the_same() -> None:
    found = chaos("--kills", "0", "--goals", "3", "--seed", "3", "--points")
    holds(found)
    fired = [fault["target"] for fault in found["faults"] if fault["kind"] == "point"]
    assert len(fired) == len(set(fired)) and set(POINTS) - set(fired) <= UNREACHED
