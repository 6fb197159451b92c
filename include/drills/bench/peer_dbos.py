"""One peer of ``./airlock bench state``, run in an environment of its own: ``peer_dbos.py ADDRESS COUNT`` prints milliseconds as JSON."""

import json
import sys
import time

from dbos import DBOS  # type: ignore[import-not-found]

ADDRESS, COUNT = sys.argv[1], int(sys.argv[2])
DBOS(config={"name": "bench", "system_database_url": ADDRESS, "log_level": "ERROR", "run_migrations": True})


@DBOS.step()  # type: ignore[untyped-decorator]
def step(number: int) -> int:
    """Do nothing: what is measured is that its outcome is durable."""
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator]
def workflow(count: int) -> list[float]:
    """Run so many steps, one after the other; returns the milliseconds of each."""
    took = []
    for number in range(count):
        begun = time.perf_counter()
        step(number)
        took.append((time.perf_counter() - begun) * 1000)
    return took


if __name__ == "__main__":
    DBOS.launch()
    workflow(20)
    print(json.dumps(workflow(COUNT)))
    DBOS.destroy()
