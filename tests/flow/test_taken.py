"""What a person ended in Airflow is ended in our tables: against a tie in PostgreSQL, and where no process is there to be told."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from include.errors import Unavailable
from include.flow import taken
from tests.conftest import wait_until
from tests.flow.conftest import Airflow, plan
from tests.kit import build

pytestmark = pytest.mark.slow
EPOCH = 2
"""Of the attempt that lives: see ``alive``."""


def once(ti: Any) -> None:
    taken._settle(ti, "a", "start", EPOCH)


def until_it_is_done(ti: Any) -> None:
    taken.settle(ti, logging.getLogger("test"), EPOCH)


def ended_step(airflow: Airflow) -> tuple[Any, str]:
    """A step that is over in Airflow, as if marked, while its attempt lives: its task instance, and the task run."""
    dag = airflow.goal(plan("a"))
    run = airflow.run(dag, ["a"])
    airflow.finish(dag, run)
    task_run = alive(airflow, run)
    step = airflow.steps(dag, run)["a.start"]
    assert step["state"] == "success"
    return SimpleNamespace(dag_id=dag, run_id=run, task_id="a.start", id=step["id"]), task_run


def alive(airflow: Airflow, run: str) -> str:
    """Its task "a", whose admit step was a probe that raised the epoch only, has an attempt that lives; returns the task run."""
    build.node(airflow.database, capacity=9)
    task = build.task(airflow.database, run, "a")
    made = build.attempt(airflow.database, task).attempt
    assert made.epoch == EPOCH
    return made.task_run


def in_a_tie(airflow: Airflow, task_run: str, work: Callable[[], None]) -> BaseException | None:
    """Do it while another transaction holds the lease and then asks for the task run: PostgreSQL lets that one pass."""
    problem: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            problem.append(error)

    thread = threading.Thread(target=run)
    with psycopg.connect(airflow.settings.dsn("owner")) as other:
        other.execute("SELECT 1 FROM leases WHERE task_run = %s FOR NO KEY UPDATE", [task_run])
        thread.start()
        blocked = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
        wait_until("it waits", lambda: airflow.database.execute(blocked, (other.info.backend_pid,)).fetchone())
        other.execute("SELECT 1 FROM task_runs WHERE id = %s FOR NO KEY UPDATE", [task_run])
    thread.join(20)
    assert not thread.is_alive()
    return problem[0] if problem else None


def test_a_tie_does_not_undo_what_a_person_did(airflow: Airflow) -> None:
    ti, task_run = ended_step(airflow)
    assert in_a_tie(airflow, task_run, lambda: until_it_is_done(ti)) is None
    assert airflow.database.execute("SELECT state FROM task_runs WHERE id = %s", (task_run,)).fetchone() == {"state": "CANCELLED"}
    assert airflow.database.execute("SELECT 1 FROM leases WHERE task_run = %s AND revoked_at IS NOT NULL", (task_run,)).fetchone()


def test_control_a_single_try_is_undone(airflow: Airflow) -> None:
    ti, task_run = ended_step(airflow)
    assert isinstance(in_a_tie(airflow, task_run, lambda: once(ti)), Unavailable)
    assert not airflow.database.execute("SELECT 1 FROM leases WHERE task_run = %s AND revoked_at IS NOT NULL", (task_run,)).fetchone()


@pytest.mark.parametrize("case", ["tried again", "cleared", "cleared by the door"])
def test_only_a_persons_clear_revokes(airflow: Airflow, case: str) -> None:
    """A try of Airflow's own, after a step died or was so slow that it looked dead, gives new ids too."""
    ti, task_run = ended_step(airflow)
    tries = airflow.steps(ti.dag_id, ti.run_id)["a.admit"]["max_tries"]
    airflow.database.execute("UPDATE attempts SET admit_tries = %s WHERE task_run = %s", (tries, task_run))
    if case == "tried again":
        for step in ("a.admit", "a.start"):
            airflow.metadata.execute("UPDATE task_instance SET id = gen_random_uuid(), state = 'up_for_retry'"
                                     " WHERE run_id = %s AND task_id = %s", (ti.run_id, step))  # fmt: skip
    else:
        body = {
            "dry_run": False,
            "dag_run_id": ti.run_id,
            "task_ids": ["a.admit", "a.start"],
            "only_failed": False,
            "reset_dag_runs": False,
        }
        airflow.http.post(f"/api/v2/dags/{ti.dag_id}/clearTaskInstances", json=body).raise_for_status()
    if case == "cleared by the door":
        airflow.database.execute("INSERT INTO reworks (id, task_run, epoch, ti_id, steps, reason, feedback)"
                                 " VALUES (gen_random_uuid(), %s, %s, 'x', '{admit,start}', '', '')", (task_run, EPOCH))  # fmt: skip
    assert taken.what_became(ti, "a", "start") == "done again"  # all that a look at the ids can tell
    assert taken._settle(ti, "a", "start", EPOCH) is (case == "cleared")
    row = airflow.database.execute("SELECT revoke_reason FROM leases WHERE task_run = %s", (task_run,)).fetchone()
    assert row == {"revoke_reason": "its steps were cleared in Airflow" if case == "cleared" else None}
    assert state(airflow, task_run) == "LEASED"


@contextmanager
def deferred(airflow: Airflow) -> Iterator[tuple[str, str, str]]:
    """A live attempt whose lease step is deferred and has no trigger: the triggerer stands still. Gives DAG, run and task run."""
    pid = airflow.pid("triggerer")
    os.kill(pid, signal.SIGSTOP)
    try:
        dag = airflow.goal(plan("a"))
        run = airflow.run(dag, ["a"])
        wait_until("the lease step is deferred", lambda: airflow.steps(dag, run)["a.lease"]["state"] == "deferred", 60)
        yield dag, run, alive(airflow, run)
    finally:
        os.kill(pid, signal.SIGCONT)
    airflow.finish(dag, run)


def state(airflow: Airflow, task_run: str) -> Any:
    return (airflow.database.execute("SELECT state FROM task_runs WHERE id = %s", (task_run,)).fetchone() or {})["state"]


@pytest.mark.parametrize("mark", ["step failed", "step success", "group success", "run failed"])
def test_a_mark_is_heard_where_no_trigger_is(airflow: Airflow, mark: str) -> None:
    with deferred(airflow) as (dag, run, task_run):
        what, _, colour = mark.rpartition(" ")
        way = {"step": "/taskInstances/a.lease", "group": "/taskGroupInstances/a", "run": ""}[what]
        body = {"state": colour} if what == "run" else {"new_state": colour}
        began = time.monotonic()
        airflow.http.patch(f"/api/v2/dags/{dag}/dagRuns/{run}{way}", json=body).raise_for_status()
        wait_until("the attempt is over", lambda: state(airflow, task_run) == "CANCELLED", 5)
        print(f"\n{mark}: over {time.monotonic() - began:.2f} s after the mark was asked for")
        row = airflow.database.execute("SELECT revoked_at IS NOT NULL AS gone FROM leases WHERE task_run = %s", (task_run,)).fetchone()
        assert row == {"gone": True}


def test_a_mark_of_a_verification_that_waits_is_heard(airflow: Airflow) -> None:
    with deferred(airflow) as (dag, run, task_run):
        for at in ("EXECUTING", "VERIFYING"):
            airflow.database.execute("UPDATE task_runs SET state = %s WHERE id = %s", (at, task_run))
        airflow.http.patch(f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/a.verify", json={"new_state": "failed"}).raise_for_status()
        wait_until("the attempt is over", lambda: state(airflow, task_run) == "CANCELLED", 5)


def test_control_without_the_hook_nobody_hears_it(airflow: Airflow) -> None:
    """The same change of state in Airflow, made without its API; and a mark of a step that the attempt can live without."""
    with deferred(airflow) as (dag, run, task_run):
        airflow.http.patch(f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/a.merge", json={"new_state": "failed"}).raise_for_status()
        airflow.metadata.execute("UPDATE task_instance SET state = 'failed' WHERE run_id = %s AND task_id = 'a.lease'", (run,))
        time.sleep(5)
        assert state(airflow, task_run) == "LEASED"
