"""One peer of ``./airlock bench state``, in an environment of its own: ``peer_langgraph.py ADDRESS COUNT`` prints milliseconds as JSON."""

import json
import sys
import time

from langgraph.checkpoint.base import empty_checkpoint  # type: ignore[import-not-found]
from langgraph.checkpoint.postgres import PostgresSaver  # type: ignore[import-not-found]

ADDRESS, COUNT = sys.argv[1], int(sys.argv[2])


def checkpoints(saver: PostgresSaver, count: int) -> list[float]:
    """Write so many checkpoints of one thread, one after the other, each with one small channel that changed."""
    config = {"configurable": {"thread_id": f"bench-{count}", "checkpoint_ns": ""}}
    took = []
    for number in range(1, count + 1):
        checkpoint = empty_checkpoint()
        checkpoint["channel_values"], checkpoint["channel_versions"] = {"state": number}, {"state": str(number)}
        begun = time.perf_counter()
        config = saver.put(config, checkpoint, {"source": "loop", "step": number}, {"state": str(number)})
        took.append((time.perf_counter() - begun) * 1000)
    return took


if __name__ == "__main__":
    with PostgresSaver.from_conn_string(ADDRESS) as saver:
        saver.setup()
        checkpoints(saver, 20)
        print(json.dumps(checkpoints(saver, COUNT)))
