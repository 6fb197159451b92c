"""A load: processes that want a processor and do nothing with it, for as long as the block lasts and no longer than they were told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_BURN = "import os, sys, time\nend, parent = time.monotonic() + float(sys.argv[1]), int(sys.argv[2])\n" \
        "while time.monotonic() < end and os.getppid() == parent:\n    for _ in range(100_000):\n        pass\n"  # fmt: skip


@contextmanager
def load(per_core: float, at_most_s: float) -> Iterator[int]:
    """Burn; each burner also ends when its parent is gone.

    Args:
        per_core: processes for each core that this process may use.
        at_most_s: seconds until they end by themselves.

    Yields:
        How many they are.
    """
    count = round(per_core * len(os.sched_getaffinity(0)))
    command = [sys.executable, "-I", "-S", "-c", _BURN, str(at_most_s), str(os.getpid())]
    burners = [subprocess.Popen(command, stdin=subprocess.DEVNULL) for _ in range(count)]
    try:
        yield count
    finally:
        for burner in burners:
            burner.kill()
        for burner in burners:
            burner.wait()
