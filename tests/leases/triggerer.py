"""A triggerer of nothing but lease triggers, as a process that can be killed: ``python -m tests.leases.triggerer GOAL KEY …``."""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

from tests.leases.world import World, run


async def main(goal: str, keys: list[str]) -> None:
    world = World.__new__(World)
    world.goal = UUID(goal)
    print("ready", flush=True)
    for event in asyncio.as_completed([run(world.trigger(key)) for key in keys]):
        print(await event, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
