"""Airflow's settings and the launcher that forks its four components."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from include.local.airflow import COMPONENTS
from include.local.airflow_settings import environment
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


@pytest.mark.slow
def test_a_component_ends_the_job_of_the_one_before_it_and_of_no_other(airflow: Airflow) -> None:
    """What a killed triggerer watched is free at once, not after its threshold. Control: the job of another machine stays as it is."""
    mine = "SELECT id, start_date, end_date, state FROM job WHERE job_type = 'TriggererJob' AND hostname <> 'elsewhere' ORDER BY id DESC LIMIT 1"
    other = (
        "INSERT INTO job (job_type, state, hostname, latest_heartbeat) VALUES ('TriggererJob', 'running', 'elsewhere', now()) RETURNING id"
    )
    (elsewhere,) = airflow.metadata.execute(other).fetchone()  # type: ignore[misc]
    old = airflow.metadata.execute(mine).fetchone()[0]  # type: ignore[index]
    try:
        airflow.kill("triggerer")
        wait_until("another triggerer is there", lambda: airflow.metadata.execute(mine).fetchone()[0] != old, 60)  # type: ignore[index]
        new = airflow.metadata.execute(mine).fetchone()
        ended = airflow.metadata.execute("SELECT end_date, state FROM job WHERE id = %s", (old,)).fetchone()
        assert new and ended and ended[1] == "failed" and ended[0] <= new[1]
        kept = airflow.metadata.execute("SELECT end_date, state FROM job WHERE id = %s", (elsewhere,)).fetchone()
        assert kept == (None, "running")
    finally:
        airflow.metadata.execute("DELETE FROM job WHERE id = %s", (elsewhere,))


@pytest.mark.slow
def test_the_execution_api_has_its_newest_version_and_only_that(airflow: Airflow) -> None:
    """The steps speak the newest (control: it knows the route, and wants a token); no other was made, which cost 2 CPU-s a process."""
    from airflow.sdk.api.datamodels._generated import API_VERSION

    def ask(version: str) -> int:
        return airflow.http.get("/execution/variables/x", headers={"Airflow-API-Version": version, "Authorization": ""}).status_code

    assert ask(API_VERSION) in (401, 403)
    assert ask("2025-04-11") == 404
