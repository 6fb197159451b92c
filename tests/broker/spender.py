"""A process that spends: four workers of it make call after call, under its own owner name, until a limit says no, or it is killed.

``python -m tests.broker.spender OWNER WORKERS LEASE`` (LEASE is a lease's id; the database is that of the environment).
"""

from __future__ import annotations

import asyncio
import random
import sys
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.broker import money
from include.broker.models import Call, Usage
from include.broker.process import _SQL
from include.clock import new_id
from include.errors import BudgetExceeded
from include.settings import settings


async def spend(owner: str, lease: dict[str, Any], seed: int) -> None:
    """One worker."""
    rng = random.Random(f"{owner}{seed}")
    async with await psycopg.AsyncConnection.connect(settings().dsn("broker"), row_factory=dict_row) as connection:
        while True:
            call = Call(request=str(new_id()), agent="jarvis", goal_run=lease["goal_run"], task_run=lease["task_run"], epoch=lease["epoch"],
                        lease=lease["id"], purpose="work", model="claude-sonnet-5-5", address="a", body={}, max_tokens=1_000)  # fmt: skip
            try:
                async with connection.transaction():
                    reserved = await money.reserve(connection, call, 5_000, owner, False)
            except BudgetExceeded as error:
                print(f"stopped by {error.limit}", flush=True)
                return
            assert reserved is not None
            async with connection.transaction():
                if not await money.mark_sent(connection, reserved, owner):
                    return
            print("sent", flush=True)
            await asyncio.sleep(rng.random() / 20)
            async with connection.transaction():
                if rng.random() < 0.2:
                    await money.release(connection, reserved, owner, 1, "refused")
                else:
                    usage = Usage(input_tokens=rng.randint(0, 5_000), output_tokens=rng.randint(0, 1_000))
                    await money.settle(connection, reserved, owner, usage, 1, False)


async def main(owner: str, workers: int, lease: str) -> None:
    """Hold the owner's name, as a broker does, and spend."""
    async with await psycopg.AsyncConnection.connect(settings().dsn("broker"), row_factory=dict_row, autocommit=True) as connection:
        await connection.execute(_SQL.hold_owner, {"owner": owner})
        row = await (await connection.execute("SELECT id, goal_run, task_run, epoch FROM leases WHERE id = %s", [lease])).fetchone()
        assert row is not None
        await asyncio.gather(*(spend(owner, row, seed) for seed in range(workers)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
