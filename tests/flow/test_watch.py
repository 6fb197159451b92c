"""The shared watch: who is called when, who is stamped, and that it survives outages, takeovers, cancels and forks."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from include.flow import watch
from include.flow.steps import lease
from include.flow.steps.lease import LeaseTrigger
from include.settings import Settings
from tests.conftest import ROOT, free_port, wait_until
from tests.kit.quiet import Figure
from tests.kit.scale import limit, patience
from tests.leases.rest import airflow_that_says
from tests.leases.world import World, run, until, with_settings

STARTS_S = 60
"""A process that imports Airflow may take so long."""
OLDEST = "SELECT extract(epoch FROM max(clock_timestamp() - watched_at))::float FROM leases"


@pytest.fixture
def mine(settings: Settings) -> Iterator[Settings]:
    with with_settings(heartbeat_timeout_s=math.ceil(limit(3)), api_port=free_port()) as changed:
        yield changed


def watched_at(world: World, key: str) -> datetime:
    found: datetime = world.lease(key)["watched_at"]
    return found


def age(world: World, key: str) -> float:
    return float(world.one("SELECT extract(epoch FROM clock_timestamp() - watched_at)::float FROM leases WHERE task_run = %s", f"g1-{key}"))


async def stopped(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_change_is_seen_at_once_and_a_quiet_lease_costs_nothing(
    mine: Settings, figure: Figure, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(mine, 200)

    async def scene() -> tuple[float, float]:
        tasks = [asyncio.create_task(run(world.trigger(f"t{number}"))) for number in range(1, 201)]
        await until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"))
        world.do("UPDATE leases SET heartbeat_at = now() + interval '1 h'")
        await asyncio.sleep(1.5)
        counted = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
        windows = []
        for _ in range(3):  # a session tells its transactions up to 10 s late: what came before falls into one of them
            before = world.one(counted)
            await asyncio.sleep(4)
            world.do("SELECT pg_stat_force_next_flush()")
            windows.append((world.one(counted) - before) / 4)
        per_second = statistics.median(windows)
        await until("every stamp is young, far below the minute", lambda: world.one(OLDEST) < min(limit(5), 20))
        begun = time.monotonic()
        world.do("UPDATE attempts SET state = 'COMPLETING', finished_at = now() WHERE task_run = 'g1-t7'")
        world.do("UPDATE attempts SET summary = 'done' WHERE task_run = 'g1-t7'")
        world.do("INSERT INTO evidence (lease, exit_code) SELECT id, 0 FROM leases WHERE task_run = 'g1-t7'")
        event = await asyncio.wait_for(tasks[6], patience(5))
        assert event["outcome"] == "handed_in"
        took = time.monotonic() - begun
        await stopped(*tasks)
        return per_second, took

    per_second, took = asyncio.run(scene())
    with capsys.disabled():
        print(f"\n  200 quiet leases: {per_second:.1f} transactions a second; a hand-in is seen after {took * 1000:.0f} ms")
    figure("transactions a second of 200 quiet leases", per_second, 10)
    figure("seconds from a hand-in to its event", took, 1)


def test_who_comes_while_the_last_one_leaves_is_watched(mine: Settings) -> None:
    """A group was cleared: the old trigger goes in the same moment in which the new one comes, and it is the only one."""
    world = World(mine, 1)

    async def scene() -> None:
        old, new = world.trigger(ti="old").task_instance, world.trigger(ti="new").task_instance
        for _ in range(5):
            with watch.here().of(old.dag_id, old.run_id, "t1", str(old.id)):
                await asyncio.sleep(0)
            with watch.here().of(new.dag_id, new.run_id, "t1", str(new.id)) as watched:  # before the loop could end the old watch
                await asyncio.wait_for(watched.changed(), patience(20))

    asyncio.run(scene())


def test_a_cancelled_trigger_is_no_longer_stamped_and_the_others_are(mine: Settings) -> None:
    world = World(mine, 3)

    async def scene() -> None:
        tasks = [asyncio.create_task(run(world.trigger(f"t{number}"))) for number in (1, 2, 3)]
        await until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"))
        await stopped(tasks[1])
        await watch.here().left_at()  # no stamp of before is under way
        left = watched_at(world, "t2")
        later = left + timedelta(seconds=2.5)
        await until("the others are stamped twice more", lambda: min(watched_at(world, "t1"), watched_at(world, "t3")) > later)
        assert watched_at(world, "t2") == left
        await stopped(*tasks)
        assert watch.here()._all == set()
        again = asyncio.create_task(run(world.trigger("t2")))  # the watch starts anew for the next one
        await until("it is stamped again", lambda: watched_at(world, "t2") > left)
        await stopped(again)

    asyncio.run(scene())


def test_an_outage_of_postgresql_is_waited_out(mine: Settings) -> None:
    """Connections are cut and refused for 3 s: the triggers go on, the stamps come again, and a revoke that came meanwhile is seen."""
    world = World(mine, 20)
    name = mine.pg_database

    async def scene() -> None:
        tasks = [asyncio.create_task(run(world.trigger(f"t{number}"))) for number in range(1, 21)]
        await until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"))
        await asyncio.to_thread(outage)
        world.__dict__["database"] = psycopg.connect(mine.dsn("owner"), row_factory=world.database.row_factory, autocommit=True)
        world.do("UPDATE leases SET heartbeat_at = clock_timestamp()")
        back = world.one("SELECT clock_timestamp()")  # a look that waited the outage out stamps too, once; the watch stamps each second
        await until("stamps come again", lambda: watched_at(world, "t1") > back + timedelta(seconds=2))
        assert not [task for task in tasks if task.done()]
        world.do(
            "UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = 'a person', ended_at = clock_timestamp() WHERE task_run = 'g1-t5'"
        )
        assert (await asyncio.wait_for(tasks[4], patience(10)))["words"] == "CANCELLED: a person"
        await stopped(*tasks)

    def outage() -> None:
        with psycopg.connect(os.environ["AIRLOCK_TEST_ADMIN_DSN"], autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            time.sleep(limit(3))
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    asyncio.run(scene())


def test_a_killed_triggerer_is_taken_over(mine: Settings) -> None:
    """SIGKILL: the stamps stop (control), the next triggerer starts the same triggers from what was serialized, and enforces."""
    world = World(mine, 5)
    world.do("UPDATE leases SET heartbeat_at = now() + interval '1 h'")
    command = [sys.executable, "-m", "tests.leases.triggerer", str(world.goal), *(f"t{number}" for number in range(1, 6))]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        wait_until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"), STARTS_S)
        owner = world.lease()["ti_id"]
        first.send_signal(signal.SIGKILL)
        first.wait()
        time.sleep(2.5)
        assert min(age(world, f"t{number}") for number in range(1, 6)) > 2  # control: without a triggerer nobody stamps
    finally:
        first.kill()
    second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        wait_until("they are stamped again", lambda: all(age(world, f"t{number}") < 1.5 for number in range(1, 6)), STARTS_S)
        assert world.lease()["ti_id"] == owner
        world.do("UPDATE leases SET tokens_used = 101 WHERE task_run = 'g1-t3'")
        wait_until("a broken term is revoked", lambda: world.lease("t3")["broken"] == "tokens", 5)
    finally:
        second.kill()
        second.wait()


def in_another_loop(do: Any) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(do()), daemon=True)
    thread.start()
    return thread


async def killed(trigger: LeaseTrigger) -> None:
    """The trigger watches, and then Airflow takes it away and calls its kill."""
    task = asyncio.create_task(run(trigger))
    await until("it watches", lambda: trigger._epoch == 1)
    await stopped(task)
    await trigger.on_kill()


def step(trigger: LeaseTrigger, state: str, **other: Any) -> dict[str, Any]:
    return {"id": str(trigger._ti().id), "state": state, "max_tries": 10, **other}


ADMIT = {"id": "a", "state": "success", "max_tries": 10}


def test_a_kill_asks_for_a_revoke_but_not_when_another_triggerer_watches(mine: Settings) -> None:
    world = World(mine, 2)
    world.do("UPDATE leases SET heartbeat_at = now() + interval '1 h'")
    mine_, marked, over = world.trigger("t1"), world.trigger("t2"), threading.Event()

    async def another() -> None:
        task = asyncio.create_task(run(world.trigger("t1")))
        while not over.is_set():
            await asyncio.sleep(0.05)
        await stopped(task)

    thread = in_another_loop(another)
    wait_until("the other watches", lambda: world.lease()["ti_id"] != "admit")
    with airflow_that_says(mine.api_port, {"t1.lease": step(mine_, "deferred"), "t2.lease": step(marked, "failed")}):
        asyncio.run(killed(mine_))
        assert world.lease("t1")["revoked_at"] is None
        over.set()
        thread.join()
        asyncio.run(killed(marked))  # control: a person marked this one
    assert world.lease("t2")["revoked_at"] is not None
    assert world.one("SELECT state FROM task_runs WHERE key = 't2'") == "CANCELLED"


def test_a_kill_while_airflow_is_too_busy_to_say_why_revokes_nothing(mine: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody answers at Airflow's port, and nobody else watches: a load may not look like a person."""
    monkeypatch.setattr(lease, "TOLD_S", 2.0)
    world = World(mine, 1)
    asyncio.run(killed(world.trigger("t1")))
    assert world.lease("t1")["revoked_at"] is None and world.one("SELECT state FROM task_runs") == "EXECUTING"


@pytest.mark.parametrize("case", ["cleared with admit", "cleared alone", "tried again by Airflow", "cleared by the door"])
def test_a_kill_after_a_clear_revokes_only_what_a_person_cleared_with_its_admit(mine: Settings, case: str) -> None:
    world = World(mine, 1)
    world.do("UPDATE attempts SET admit_tries = 10")
    trigger = world.trigger("t1")
    admit = {
        "cleared with admit": {"id": "b", "state": None, "max_tries": 11},
        "cleared alone": ADMIT,
        "tried again by Airflow": {"id": "b", "state": "up_for_retry", "max_tries": 10},
        "cleared by the door": {"id": "b", "state": "deferred", "max_tries": 11},
    }[case]
    if case == "cleared by the door":
        world.do("INSERT INTO reworks (id, task_run, epoch, ti_id, steps, reason, feedback)"
                 " VALUES (gen_random_uuid(), 'g1-t1', 1, 'x', '{admit,start,lease}', '', '')")  # fmt: skip
    with airflow_that_says(mine.api_port, {"t1.lease": step(trigger, "scheduled", id="another"), "t1.admit": admit}):
        asyncio.run(killed(trigger))
    assert (world.lease()["revoke_reason"] == "its steps were cleared in Airflow") is (case == "cleared with admit")
    assert world.one("SELECT state FROM task_runs") == "EXECUTING"


def test_a_kill_of_an_older_task_instance_revokes_nothing(mine: Settings) -> None:
    """Only the lease step was cleared: the new task instance owns the same epoch by then."""
    world = World(mine, 1)

    async def scene() -> None:
        old = world.trigger("t1", "1")
        task = asyncio.create_task(run(old))
        await until("it watches", lambda: old._epoch == 1)
        await stopped(task)
        new = world.trigger("t1", "2")
        task = asyncio.create_task(run(new))
        await until("the new one owns it", lambda: world.lease()["ti_id"] == new.task_instance.id)  # type: ignore[union-attr]
        with airflow_that_says(mine.api_port, {"t1.lease": step(new, "deferred"), "t1.admit": ADMIT}):
            await old.on_kill()
        with airflow_that_says(mine.api_port, {"t1.lease": step(old, "failed")}):  # it was marked before it was cleared
            await old.on_kill()
        assert world.lease()["revoked_at"] is None
        await stopped(task)

    asyncio.run(scene())


def test_d11_two_monitors_see_the_same_loss_and_there_is_one_retry(mine: Settings) -> None:
    """Two triggerers hold the same trigger for a while; the attempt is lost: one decision, one end, one incident."""
    world = World(mine, 40)
    keys = [f"t{number}" for number in range(1, 41)]
    over = threading.Event()

    async def monitor() -> None:
        tasks = [asyncio.create_task(run(world.trigger(key))) for key in keys]
        while not over.is_set():
            await asyncio.sleep(0.05)
        await stopped(*tasks)

    threads = [in_another_loop(monitor), in_another_loop(monitor)]
    wait_until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"))
    world.do("INSERT INTO evidence (lease, because) SELECT id, 'lost' FROM leases")
    world.do("UPDATE leases SET ended_at = clock_timestamp()")
    wait_until("all are decided", lambda: world.one("SELECT count(*) = 40 FROM task_runs WHERE state = 'PENDING_RETRY'"))
    time.sleep(1)
    over.set()
    for thread in threads:
        thread.join()
    assert world.one("SELECT count(*) FROM reworks") == 40
    assert world.one("SELECT count(*) FROM attempts WHERE failure = 'lost' AND NOT counted AND ended_at IS NOT NULL") == 40
    assert world.one("SELECT count(*) FROM task_events WHERE machine = 'task_run' AND to_state = 'PENDING_RETRY'") == 40
    assert world.one("SELECT count(*) FROM notices") == world.one("SELECT count(*) FROM audit_log") == 40
    world.do(
        "ALTER TABLE reworks DROP CONSTRAINT reworks_task_run_epoch_ti_id_key"
    )  # control: without the fence the database would take two
    world.do(
        "INSERT INTO reworks (id, task_run, epoch, ti_id, steps, reason, feedback) SELECT gen_random_uuid(), task_run, epoch, ti_id, steps, '', '' FROM reworks"
    )
    assert world.one("SELECT count(*) FROM reworks") == 80


def test_a_fork_has_a_watch_of_its_own(mine: Settings) -> None:
    world = World(mine, 2)
    world.do("UPDATE leases SET heartbeat_at = now() + interval '1 h'")

    async def scene() -> int:
        task = asyncio.create_task(run(world.trigger("t1")))
        await until("it is watched", lambda: world.lease("t1")["ti_id"] != "admit")
        pid = os.fork()
        if pid == 0:
            ended = threading.Thread(target=lambda: asyncio.run(child()))
            ended.start()
            ended.join(patience(20))
            os._exit(1)
        assert await asyncio.to_thread(os.waitpid, pid, 0) == (pid, 0)
        now = world.one("SELECT clock_timestamp()")
        await until("the parent's goes on", lambda: watched_at(world, "t1") > now)
        await stopped(task)
        return pid

    async def child() -> None:
        event = await asyncio.wait_for(run(world.trigger("t2")), patience(15))
        os._exit(0 if event["outcome"] == "merged" else 2)

    world.do("ALTER TABLE task_runs DISABLE TRIGGER guard")
    world.do("UPDATE task_runs SET state = 'COMPLETED', merged_commit = 'abc' WHERE key = 't2'")
    asyncio.run(scene())
