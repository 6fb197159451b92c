"""PostgreSQL is killed and started again: nothing expires or is silent for one heartbeat timeout after, and then what is due is due."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import psutil
import psycopg
import pytest

from include.drills.bench.servers import Servers, temporary_servers, wait_for
from include.local import health, postgres
from tests.conftest import free_port
from tests.kit.scale import limit, patience
from tests.leases.world import World, run, until, with_settings

TIMEOUT_S, CONTROLS_TIMEOUT_S = int(limit(6)), int(limit(60))
"""The control does not wait for the end of its calm: it is long, so that what breaks in it breaks in it on a busy machine too."""
AWAY_S = limit(3)


def restart(servers: Servers) -> None:
    """SIGKILL to every process of the server, some seconds of nothing, and a fresh start on the same data."""
    settings = servers.settings
    server = servers._children[0]
    everyone = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    for process in everyone:
        process.kill()
    server.wait()
    time.sleep(AWAY_S)
    binaries = postgres.find_binaries(settings.pg_bin)
    servers.start("postgres", postgres.command(binaries, settings.home / "postgres", settings.pg_port))
    wait_for("PostgreSQL answers again", lambda: health.postgres(settings), patience(30))


async def scene(servers: Servers, world: World, timeout_s: int, broken: bool) -> list[dict[str, Any]]:
    """20 leases: half are silent and half expire in the outage. Returns those that are revoked in the end, with how long after the start.

    While it is calm nothing may be; before the calm ends two of the silent ones are heard again.
    """
    world.do("UPDATE leases SET heartbeat_at = now() + interval '1 h'")  # nothing is due before all of them are watched
    tasks = [asyncio.create_task(run(world.trigger(f"t{number}"))) for number in range(1, 21)]
    await until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"))
    due = limit(2)
    world.do(
        "UPDATE leases SET heartbeat_at = clock_timestamp() - make_interval(secs => %s) WHERE right(task_run, 1) >= '5'", timeout_s - due
    )
    world.do("UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => %s) WHERE right(task_run, 1) < '5'", due)
    if broken:
        world.do(
            "CREATE OR REPLACE FUNCTION calm_until(l leases, calm interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT '-infinity'::timestamptz $$"
        )
    await asyncio.to_thread(restart, servers)
    world.database = psycopg.connect(world.settings.dsn("owner"), row_factory=world.database.row_factory, autocommit=True)
    if not broken:
        await asyncio.sleep(timeout_s / 2)
        world.do("UPDATE leases SET heartbeat_at = clock_timestamp() WHERE task_run IN ('g1-t5', 'g1-t6') AND revoked_at IS NULL")
    enough = 20 if broken else 18
    await until("what stayed silent is revoked", lambda: world.one("SELECT count(*) >= %s FROM leases WHERE broken <> ''", enough), 20)
    rows = world.do(
        "SELECT broken, task_run, revoked_at - pg_postmaster_start_time() AS after, revoked_at - heartbeat_at AS unheard"
        " FROM leases WHERE revoked_at IS NOT NULL"
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    world.database.close()
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True], ids=["calm", "control: without calm"])
def test_a_restart_of_postgresql(broken: bool) -> None:
    timeout_s = CONTROLS_TIMEOUT_S if broken else TIMEOUT_S
    with temporary_servers() as servers, with_settings(heartbeat_timeout_s=timeout_s, api_port=free_port()) as mine:
        rows = asyncio.run(scene(servers, World(mine, 20), timeout_s, broken))
        calm = timedelta(seconds=timeout_s)
        assert {row["broken"] for row in rows} == {"expired", "silent"}
        in_the_calm = [row["task_run"] for row in rows if row["after"] < calm]
        if broken:
            assert len(in_the_calm) == 20
            return
        assert in_the_calm == []
        assert [row for row in rows if row["task_run"] in ("g1-t5", "g1-t6") and row["unheard"] < calm] == []
