"""What a person ended in Airflow is ended in our tables, also when PostgreSQL breaks a tie against the step that writes it down."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from include.clock import new_id
from include.errors import Unavailable
from include.flow import taken
from tests.conftest import wait_until
from tests.flow.conftest import Airflow, plan

pytestmark = pytest.mark.slow


def once(ti: Any) -> None:
    taken._settle(ti, "a", "start", 1)


def until_it_is_done(ti: Any) -> None:
    taken.settle(ti, logging.getLogger("test"), 1)


def ended_step(airflow: Airflow) -> tuple[Any, str]:
    """A step that is over in Airflow, as if marked, while its attempt lives: its task instance, and the task run."""
    dag = airflow.goal(plan("a"))
    run = airflow.run(dag, ["a"])
    airflow.finish(dag, run)
    task_run = f"{run}-a"
    airflow.database.execute("INSERT INTO nodes VALUES ('local', 9, 'bubblewrap') ON CONFLICT DO NOTHING")
    airflow.database.execute("INSERT INTO attempts (task_run, epoch, node, rung) VALUES (%s, 1, 'local', 'bubblewrap')", (task_run,))
    airflow.database.execute(
        "INSERT INTO leases (id, kind, sandbox, goal_run, task_run, epoch, node, capabilities, input_commit, max_tokens, max_micro, ti_id,"
        " expires_at) VALUES (%s, 'work', %s, %s, %s, 1, 'local', '{}', 'c', 1, 1, 'ti', now() + interval '1 hour')",
        (new_id(), f"airlock-{task_run}-1", run, task_run),
    )
    step = airflow.steps(dag, run)["a.start"]
    assert step["state"] == "success"
    return SimpleNamespace(dag_id=dag, run_id=run, task_id="a.start", id=step["id"]), task_run


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
