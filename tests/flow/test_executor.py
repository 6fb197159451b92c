"""The cure of LocalExecutor, against Airflow's own: a contract with 3.3.2, shown to hold and shown to be needed."""

from __future__ import annotations

import os
import threading
import time
from typing import Any

import psycopg
import pytest
from airflow.executors.local_executor import LocalExecutor
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState

from include.database.unit_of_work import transaction
from include.flow import executor as cure
from include.flow import poke
from include.flow.executor import HoldingLocalExecutor
from include.settings import Settings

KEY = TaskInstanceKey("goal", "a.verify", "run", 1, -1)


class Workload:
    """What the executor looks at of a queued step."""

    key = KEY

    class ti:
        priority_weight = 1


@pytest.fixture(params=[HoldingLocalExecutor, LocalExecutor], ids=["cured", "airflow's own"])
def executor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Started without worker processes, so that the test plays the worker and decides when its report comes."""
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 64)
    monkeypatch.setattr(LocalExecutor, "_check_workers", lambda self: None)
    monkeypatch.setattr(LocalExecutor, "_spawn_worker", lambda self: None)
    made = request.param(parallelism=2)
    made.start()
    yield made
    made.end()


def hand_in(executor: Any) -> bool:
    """Queue the step and let the executor hand out work. True when the step reached the workers' queue."""
    executor.queued_tasks[KEY] = Workload()
    executor.trigger_tasks(2)
    if executor.activity_queue.empty():
        return False
    executor.activity_queue.get()
    return True


def test_a_resumed_step_waits_for_its_first_end(executor: Any) -> None:
    cured = isinstance(executor, HoldingLocalExecutor)
    assert hand_in(executor)
    assert hand_in(executor) is not cured  # resumed before the first process reported: held, or (Airflow's own) handed out
    assert (KEY in executor.queued_tasks) is cured  # where has_task() sees it, so that the late report fails nothing
    executor.result_queue.put((KEY, TaskInstanceState.RUNNING, None))
    executor.result_queue.put((KEY, TaskInstanceState.SUCCESS, None))
    executor.sync()
    assert (KEY in executor.queued_tasks) is cured  # still there while the scheduler processes the report
    assert executor.get_event_buffer()[KEY][0] == TaskInstanceState.SUCCESS
    assert hand_in(executor)


def test_the_scheduler_beats_and_goes_on_beating(settings: Settings) -> None:
    """Each loop of Airflow's scheduler calls the executor; a connection that breaks costs one beat and no loop."""

    def beaten_at() -> Any:
        with transaction("owner") as connection:
            row = connection.execute("SELECT beat_at FROM pulses WHERE name = 'airflow/scheduler'").fetchone()
            return row and row["beat_at"]

    pulse = cure.Pulse()
    pulse.beat()
    first = beaten_at()
    pulse.beat()
    assert first is not None and beaten_at() == first  # not more often than that
    assert pulse._line is not None
    with psycopg.connect(os.environ["AIRLOCK_TEST_ADMIN_DSN"], autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", [pulse._line.info.backend_pid])
    for _ in range(2):
        time.sleep(cure.BEAT_S)
        pulse.beat()
    assert beaten_at() > first


def test_the_executor_beats_in_each_loop(executor: Any, settings: Settings) -> None:
    executor.heartbeat()
    with transaction("owner") as connection:
        beats = connection.execute("SELECT name FROM pulses").fetchall()
    assert beats == ([{"name": "airflow/scheduler"}] if isinstance(executor, HoldingLocalExecutor) else [])


def test_a_report_that_never_comes_holds_no_longer_than_15_s(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if not isinstance(executor, HoldingLocalExecutor):
        pytest.skip("Airflow's own holds nothing")
    now = 100.0
    monkeypatch.setattr(cure, "monotonic", lambda: now)  # only there: queues read the clock too
    assert hand_in(executor) and not hand_in(executor)
    now += cure.MOST_S + 0.1
    assert hand_in(executor)


def pause_of(executor: Any, end_it: Any = lambda: None) -> float:
    """Seconds that the executor pauses after a look that had nothing to do, while something else happens 50 ms later."""
    executor.sync()  # what came before is heard
    timer = threading.Timer(0.05, end_it)
    timer.start()
    begun = time.monotonic()
    executor.sync()
    timer.join()
    return time.monotonic() - begun


@pytest.fixture
def patient(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause that nothing on a busy machine can be taken for."""
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(cure, "IDLE_S", 5.0)


@pytest.mark.parametrize("executor", [HoldingLocalExecutor], indirect=True)
def test_a_report_or_a_poke_ends_the_pause(patient: None, executor: Any) -> None:
    assert pause_of(executor, lambda: executor.result_queue.put((KEY, TaskInstanceState.SUCCESS, None))) < 4
    assert executor.get_event_buffer()[KEY][0] == TaskInstanceState.SUCCESS  # taken in before the scheduler looks for it
    assert pause_of(executor, poke.poke) < 4
    assert pause_of(executor) >= 5  # control: without either it lasts; and the poke of before is heard no second time


@pytest.mark.parametrize("executor", [HoldingLocalExecutor], indirect=True)
def test_after_a_look_that_had_something_to_do_there_is_no_pause(patient: None, executor: Any) -> None:
    assert hand_in(executor)
    begun = time.monotonic()
    executor.sync()
    assert time.monotonic() - begun < 4


def test_a_poke_that_nobody_hears_is_no_matter(settings: Settings) -> None:
    (settings.run_dir / "scheduler.sock").unlink(missing_ok=True)
    poke.poke()
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    heard = poke.listen()
    assert heard is not None
    for _ in range(5000):  # more than a socket holds
        poke.poke()
    poke.hear(heard)
    with pytest.raises(BlockingIOError):
        heard.recv(1)
    heard.close()
    poke.poke()
