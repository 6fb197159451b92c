"""Chaos, as a person starts it: everything is killed while goals are under way, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from include.faults import POINTS
from tests.conftest import ROOT
from tests.kit.scale import count, patience

pytestmark = [pytest.mark.slow, pytest.mark.stack, pytest.mark.timeout(patience(900))]
SEEDS = (5173, 12, 13, 14)
"""The first one's kills begin with broker, postgres, a worker, the DAG processor, the streams wiped, a fault point, all at once, the triggerer."""
UNREACHED = {"door.clear.before", "door.clear.after"}
"""Points that only a rework comes by: a run may need none."""


def chaos(*arguments: str) -> dict[str, Any]:
    """Run it; its home is its own, and gone afterwards."""
    command = [sys.executable, "-m", "include.cli", "chaos", "--engine", "bubblewrap", "--json", *arguments]
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


@pytest.mark.sized
@pytest.mark.xdist_group("chaos kills")
@pytest.mark.parametrize("seed", SEEDS[: count(1, 4)])
def test_kills_while_goals_are_under_way(seed: int) -> None:
    kills = count(8, 50)
    found = chaos("--kills", str(kills), "--goals", str(count(4, 14)), "--seed", str(seed))
    holds(found)
    assert len([fault for fault in found["faults"] if fault["kind"] in ("kill", "wipe")]) >= kills * 2 // 3


@pytest.mark.sized
@pytest.mark.xdist_group("chaos points")
def test_each_fault_point_kills_once_and_the_end_is_the_same() -> None:
    found = chaos("--kills", "0", "--goals", str(count(2, 3)), "--seed", "3", "--points")
    holds(found)
    fired = [fault["target"] for fault in found["faults"] if fault["kind"] == "point"]
    assert len(fired) == len(set(fired)) and set(POINTS) - set(fired) <= UNREACHED
