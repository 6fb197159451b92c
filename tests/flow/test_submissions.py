"""Submissions that wait for their goals hold no worker slot, and no other submission waits for them: on a real Airflow."""

from __future__ import annotations

import runpy
import secrets
from pathlib import Path
from typing import Any

import pytest

from include.local.airflow_settings import environment
from include.settings import ROOT, Settings
from tests.conftest import wait_until
from tests.flow.conftest import Airflow, plan
from tests.kit import build
from tests.kit.scale import patience

BEFORE = 16
"""So many submissions that waited made all others wait."""
WAITING = """
from airflow.sdk import DAG
from include.flow.steps.base import Step
from include.flow.waiting import NotYet
from include.database import rows
from include.database.unit_of_work import transaction

class Waits(Step):
    def advance(self, context):
        with transaction("airflow") as connection:
            ended = rows.scalar(connection, "SELECT ended_at FROM goal_runs WHERE id = %(run)s", run={run!r})
        return "over" if ended else NotYet("run_ended", {run!r}, "Waiting for the goal's end.")

with DAG({dag!r}, schedule=None, catchup=False, is_paused_upon_creation=False, max_active_runs={most}):
    Waits(task_id="wait")
"""


def submit_goal() -> Any:
    return runpy.run_path(str(ROOT / "dags" / "submit_goal.py"))["dag"]


def test_many_submissions_may_be_under_way_and_wait_in_one_triggerer(tmp_path: Path) -> None:
    dag = submit_goal()
    assert dag.max_active_runs >= 1_000
    assert {task.pool for task in dag.tasks} == {"default_pool"}  # which does not count what is deferred
    assert all(task.max_active_tis_per_dag is None and task.max_active_tis_per_dagrun is None for task in dag.tasks)
    capacity = int(environment(Settings(home=tmp_path))["AIRFLOW__TRIGGERER__CAPACITY"])
    assert capacity >= 2 * dag.max_active_runs  # what waits leaves room for the leases


def states(airflow: Airflow, dag_id: str) -> list[tuple[str, str | None]]:
    """Of each run its state, and that of its step."""
    query = "SELECT r.state, t.state FROM dag_run r LEFT JOIN task_instance t ON (t.dag_id, t.run_id) = (r.dag_id, r.run_id) WHERE r.dag_id = %s"
    return airflow.metadata.execute(query, (dag_id,)).fetchall()


def begin(airflow: Airflow, goal_run: str, most: int, runs: int) -> str:
    """Start runs of a DAG that wait for a goal run's end as ``submit_goal`` does; so many may be active."""
    dag_id = f"waits_{secrets.token_hex(4)}"
    (airflow.dags / f"{dag_id}.py").write_text(WAITING.format(run=goal_run, dag=dag_id, most=most))
    for number in range(runs):
        airflow.trigger(dag_id, f"run{number}", 90)
    return dag_id


@pytest.mark.slow
def test_what_waits_holds_no_worker_slot_and_stops_no_other_submission(airflow: Airflow) -> None:
    goal = airflow._goal(airflow.goal(plan("a")))
    assert goal is not None
    name = f"g{secrets.token_hex(6)}"
    goal_run = build.run(airflow.database, goal, name, name).id
    many = begin(airflow, goal_run, submit_goal().max_active_runs, BEFORE + 4)
    wait_until("all of them wait", lambda: states(airflow, many) == [("running", "deferred")] * (BEFORE + 4), patience(120))
    # control: with a small limit those that wait do stop the next one
    few = begin(airflow, goal_run, 2, 3)
    held = [("queued", None), ("running", "deferred"), ("running", "deferred")]
    wait_until("two of three wait", lambda: sorted(states(airflow, few), key=str) == held, patience(60))
    busy = airflow.metadata.execute(
        "SELECT count(*) FROM task_instance WHERE state IN ('running', 'queued') AND dag_id IN (%s, %s)", (many, few)
    )
    assert busy.fetchone() == (0,)
    airflow.database.execute("UPDATE goal_runs SET ended_at = now(), state = 'CANCELLED' WHERE id = %s", (goal_run,))
    wait_until("all of them end", lambda: {state for dag in (many, few) for state, _ in states(airflow, dag)} == {"success"}, patience(120))
