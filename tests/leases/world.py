"""Many attempts in the database at once, and a triggerer's event loop that watches them with real lease triggers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid5

import psycopg
from psycopg.rows import dict_row

from include import settings as settings_module
from include.database import unit_of_work
from include.leases.models import Terms
from include.settings import Settings
from include.tasks.models import GoalRunState
from tests.kit import build
from tests.kit.scale import patience

if TYPE_CHECKING:
    from include.flow.steps.lease import LeaseTrigger

TERMS = Terms(seconds=3600, max_tokens=100, max_micro=100, capabilities=())


class World:
    """Attempts, and the clock of PostgreSQL."""

    def __init__(self, settings: Settings, count: int) -> None:
        self.settings, self.count = settings, count
        self.database = psycopg.connect(settings.dsn("owner"), row_factory=dict_row, autocommit=True)
        with self.database.transaction():
            build.ground(self.database)
            build.node(self.database, capacity=9999)
            goal = build.goal(self.database, "goal_sample", key="k", goal="t", budget_usd=1e-4)
            build.run(self.database, goal, "g1", "run1", GoalRunState.RUNNING)
            for number in range(1, count + 1):
                task = build.task(self.database, "g1", f"t{number}")
                build.works(self.database, build.attempt(self.database, task, TERMS, ti_id="admit"))
        self.goal = goal.id

    def do(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        cursor = self.database.execute(statement, values)  # type: ignore[call-overload]
        return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: Any) -> Any:
        return next(iter(self.do(statement, *values)[0].values()))

    def lease(self, key: str = "t1") -> dict[str, Any]:
        return self.do(
            "SELECT * FROM leases WHERE task_run = %s AND epoch = (SELECT epoch FROM task_runs WHERE id = %s)", f"g1-{key}", f"g1-{key}"
        )[0]

    def trigger(self, key: str = "t1", ti: str = "1") -> LeaseTrigger:
        """As the triggerer makes it: from its serialized form, with the task instance set."""
        from include.flow.steps.lease import LeaseTrigger  # here, as it takes seconds to load: not every process of a test run needs it

        _, arguments = LeaseTrigger(key).serialize()
        trigger = LeaseTrigger(**arguments)
        trigger.task_instance = SimpleNamespace(  # type: ignore[assignment]
            dag_id="goal_sample", run_id="run1", task_id=f"{key}.lease", id=str(uuid5(self.goal, key + ti)), try_number=1, map_index=-1
        )
        return trigger


async def run(trigger: LeaseTrigger) -> dict[str, Any]:
    """The event that a trigger yields."""
    async for event in trigger.run():
        return dict(event.payload)
    raise AssertionError("a trigger ended without an event")


async def until(what: str, check: Any, seconds: float = 15) -> Any:
    """Wait in the loop until a check is true; fail after so many seconds of a free machine."""
    seconds = patience(seconds)
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        if value := check():
            return value
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s in vain: {what}")


@contextmanager
def with_settings(**values: Any) -> Iterator[Settings]:
    """Other settings for this process, as a triggerer would have read them; its pool of connections starts afresh."""
    names = {f"AIRLOCK_{name.upper()}": str(value) for name, value in values.items()}
    os.environ.update(names)
    settings_module.settings.cache_clear()
    try:
        yield settings_module.settings()
    finally:
        for pool in unit_of_work._pools.values():
            pool.close()
        unit_of_work._pools.clear()
        for name in names:
            del os.environ[name]
        settings_module.settings.cache_clear()
