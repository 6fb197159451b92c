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
from include.clock import new_id
from include.database import unit_of_work
from include.settings import Settings
from tests.kit.scale import patience

if TYPE_CHECKING:
    from include.flow.steps.lease import LeaseTrigger

ROWS = """
INSERT INTO agents VALUES ('jarvis', 'p', 'w', 'a', '{}', 1, 1);
INSERT INTO repositories VALUES ('sample', '/nowhere', true);
INSERT INTO nodes VALUES ('local', 9999, 'bubblewrap');
INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key, request_sha256, created_by)
VALUES ('{goal}', 'goal_sample', 't', 't', 'sample', 'main', 'jarvis', 100, 60, 'per_goal', 'k', 'h', 'me');
INSERT INTO goal_runs (id, goal, dag_id, run_id, goal_branch, budget_micro, deadline_at, state)
VALUES ('g1', '{goal}', 'goal_sample', 'run1', 'b', 100, now() + interval '1 hour', 'SUBMITTED');
UPDATE goal_runs SET state = 'RUNNING';
INSERT INTO task_runs (id, goal_run, key) SELECT 'g1-t' || n, 'g1', 't' || n FROM generate_series(1, {count}) n;
UPDATE task_runs SET state = 'POLICY_CHECK'; UPDATE task_runs SET state = 'LEASED', epoch = 1;
INSERT INTO attempts (task_run, epoch, node, rung) SELECT id, 1, 'local', 'x' FROM task_runs;
UPDATE task_runs SET state = 'EXECUTING'; UPDATE attempts SET state = 'WORKING';
INSERT INTO leases (id, kind, sandbox, goal_run, task_run, epoch, node, input_commit, max_tokens, max_micro, ti_id, started_at, expires_at)
SELECT gen_random_uuid(), 'work', 'airlock-' || id || '-1', 'g1', id, 1, 'local', 'c', 100, 100, 'admit', now(), now() + interval '1 hour' FROM task_runs;
"""


class World:
    """Attempts, and the clock of PostgreSQL."""

    def __init__(self, settings: Settings, count: int) -> None:
        self.settings, self.count = settings, count
        self.goal = new_id()
        self.database = psycopg.connect(settings.dsn("owner"), row_factory=dict_row, autocommit=True)
        self.database.execute(ROWS.replace("{goal}", str(self.goal)).replace("{count}", str(count)))  # type: ignore[call-overload]

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
