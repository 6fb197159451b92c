"""PostgreSQL is killed and started again: nothing expires or is silent for one heartbeat timeout after, and then what is due is due."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import psutil
import psycopg
import pytest

from include.local import health, postgres
from include.local.bench.servers import Servers, temporary_servers, wait_for
from tests.conftest import free_port
from tests.leases.world import World, run, until, with_settings

TIMEOUT_S = 12
AWAY_S = 4


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
    wait_for("PostgreSQL answers again", lambda: health.postgres(settings), 30)


async def scene(servers: Servers, world: World, broken: bool) -> list[dict[str, Any]]:
    """20 leases: half are silent and half expire in the outage. Returns them, with the time since the start, three seconds before the calm ends."""
    tasks = [asyncio.create_task(run(world.trigger(f"t{number}"))) for number in range(1, 21)]
    await until("all are owned", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE ti_id = 'admit'"))
    world.do("UPDATE leases SET heartbeat_at = clock_timestamp() - make_interval(secs => %s)", TIMEOUT_S - 2)
    world.do(
        "UPDATE leases SET heartbeat_at = now() + interval '1 h', expires_at = clock_timestamp() + interval '2 s' WHERE right(task_run, 1) < '5'"
    )
    if broken:
        world.do(
            "CREATE OR REPLACE FUNCTION calm_until(l leases, calm interval) RETURNS timestamptz LANGUAGE sql AS $$ SELECT '-infinity'::timestamptz $$"
        )
    await asyncio.to_thread(restart, servers)
    world.database = psycopg.connect(world.settings.dsn("owner"), row_factory=world.database.row_factory, autocommit=True)
    await asyncio.sleep(TIMEOUT_S - 3)
    rows = world.do("SELECT l.*, pg_postmaster_start_time() AS started FROM leases l")
    if not broken:
        world.do("UPDATE leases SET heartbeat_at = clock_timestamp() WHERE task_run IN ('g1-t5', 'g1-t6')")
        await until(
            "what stayed silent is revoked", lambda: world.one("SELECT count(*) >= 18 FROM leases WHERE revoked_at IS NOT NULL"), 20
        )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return rows


@pytest.mark.parametrize("broken", [False, True], ids=["calm", "control: without calm"])
def test_a_restart_of_postgresql(broken: bool) -> None:
    with temporary_servers() as servers, with_settings(heartbeat_timeout_s=TIMEOUT_S, api_port=free_port()) as mine:
        time.sleep(TIMEOUT_S)  # the calm after its first start
        world = World(mine, 20)
        rows = asyncio.run(scene(servers, world, broken))
        if broken:
            assert len([row for row in rows if row["broken"]]) == 20
            return
        assert [row["broken"] for row in rows if row["broken"]] == []
        late = world.do(
            "SELECT broken, task_run, revoked_at - pg_postmaster_start_time() AS after FROM leases WHERE revoked_at IS NOT NULL"
        )
        assert min(row["after"] for row in late) >= timedelta(seconds=TIMEOUT_S)
        assert {row["broken"] for row in late} == {"expired", "silent"}
        assert not {"g1-t5", "g1-t6"} & {row["task_run"] for row in late if row["after"] < timedelta(seconds=TIMEOUT_S + 3)}
        world.database.close()
