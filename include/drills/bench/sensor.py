"""The lease triggers of a goal run in a process of their own, as a triggerer runs them: ``python -m include.drills.bench.sensor``.

A line on stdin with a key is what Airflow's ``on_kill`` of that step does once a person has marked it.
"""

from __future__ import annotations

import asyncio
import sys
from types import SimpleNamespace

from include.clock import new_id
from include.flow import watch
from include.flow.steps.lease import LeaseTrigger


def _trigger(run: str, key: str) -> LeaseTrigger:
    trigger = LeaseTrigger(key)
    instance = SimpleNamespace(dag_id=run, run_id="bench", task_id=f"{key}.lease", id=str(new_id()), try_number=1, map_index=-1)
    trigger.task_instance = instance  # type: ignore[assignment]
    return trigger


async def _consume(trigger: LeaseTrigger) -> None:
    async for event in trigger.run():
        print(event, flush=True)


async def _main(run: str, keys: list[str]) -> None:
    loop = asyncio.get_running_loop()
    triggers = {key: _trigger(run, key) for key in keys}
    tasks = {key: asyncio.create_task(_consume(trigger)) for key, trigger in triggers.items()}
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        key = line.decode().strip()
        tasks[key].cancel()
        await asyncio.gather(tasks[key], return_exceptions=True)
        await loop.run_in_executor(None, triggers[key].revoke, await watch.here().left_at())


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], sys.argv[2:]))
