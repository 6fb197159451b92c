"""Named points at which a process dies when a test or `./airlock chaos` asks for it. Without ``AIRLOCK_FAULTS`` each is a no-op.

A point is armed by a file of its name in the folder that ``AIRLOCK_FAULTS`` names. Whichever process of ours comes by first takes the
file away and kills itself with SIGKILL, so an armed point kills exactly once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

FOLDER = Path(os.environ["AIRLOCK_FAULTS"]) if os.environ.get("AIRLOCK_FAULTS") else None


def point(name: str) -> None:
    """Die here if this point is armed.

    Args:
        name: a key of ``POINTS``.
    """
    if FOLDER is None:
        return
    try:
        (FOLDER / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


POINTS: dict[str, str] = {
    "messages-taken": "broker: a batch of workers' messages is written, not committed",
    "messages-committed": "broker: a batch is committed, not acknowledged to the streams",
    "messages-acknowledged": "broker: a batch is acknowledged",
    "outbox-unsent": "broker: messages to workers are read from the outbox, not appended",
    "outbox-appended": "broker: they are appended to the streams, not marked as sent",
}
"""Every point by its name, with where it stands in a few words."""
