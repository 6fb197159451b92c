"""Airflow's settings and the launcher that forks its four components."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from include.local.airflow import COMPONENTS, environment
from include.settings import Settings
from tests.conftest import wait_until
from tests.flow.conftest import Airflow, start, wait_for_airflow


def parents() -> dict[int, int]:
    """Parent by process, of all that are alive (zombies are not)."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            found[int(stat.parent.name)] = int(parent)
    return found


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    tree, known, more = parents(), {pid}, True
    while more:
        grown = known | {child for child, parent in tree.items() if parent in known}
        more, known = grown != known, grown
    return known


def test_secrets_are_private_and_stay(settings: Settings) -> None:
    first, second = environment(settings), environment(settings)
    assert first["AIRFLOW__API_AUTH__JWT_SECRET"] == second["AIRFLOW__API_AUTH__JWT_SECRET"]
    for name in ("secrets.json", "logins.json"):
        assert (settings.home / "airflow" / name).stat().st_mode & 0o777 == 0o600
    assert json.loads((settings.home / "airflow" / "logins.json").read_text()).keys() == {"admin", "airlock"}


@pytest.mark.slow
def test_a_dead_component_comes_back_and_its_workers_do_not_stay(airflow: Airflow) -> None:
    old = airflow.pid("scheduler")
    workers = family(old) - {old}
    assert workers
    airflow.kill("scheduler")
    wait_until("another scheduler is there", lambda: airflow.pid("scheduler") not in (0, old), 20)
    assert not workers & parents().keys()


@pytest.mark.slow
def test_nothing_outlives_a_killed_launcher(airflow: Airflow) -> None:
    """kill -9 of the launcher ends all of Airflow; the next start goes on."""
    everyone = family(airflow.launcher.pid)
    assert {airflow.pid(name) for name in COMPONENTS} <= everyone
    os.kill(airflow.launcher.pid, signal.SIGKILL)
    airflow.launcher.wait()
    wait_until("all processes of Airflow are gone", lambda: not everyone & parents().keys(), 10)
    began = time.monotonic()
    airflow.launcher = start(airflow.settings.home, {"PROBE_DAGS": str(airflow.dags)})
    wait_until("the launcher has forked", lambda: airflow.pid("launcher") == airflow.launcher.pid and airflow.pid("api-server"), 120)
    wait_for_airflow(airflow, airflow.launcher)
    print(f"\nAirflow is back {time.monotonic() - began:.1f} s after the next start")
