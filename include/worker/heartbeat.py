"""Says every few seconds that the worker lives, and what it does. Carries no usage: the broker counts."""

from __future__ import annotations

import sys
import threading

from include.worker.conversation import Conversation
from include.worker.errors import LinkRefused


class Heart:
    """A thread of its own, so that a long test run does not look like a death.

    Args:
        conversation: where to say it.
        every_s: seconds between two.
    """

    def __init__(self, conversation: Conversation, every_s: float = 10.0) -> None:
        self._conversation = conversation
        self._every_s = every_s
        self._status, self._step = "ready", "starting"
        self._changed = threading.Event()

    def start(self) -> None:
        """Begin to beat."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def set_interval(self, every_s: float) -> None:
        """Beat at another pace from now on."""
        self._every_s = every_s
        self._changed.set()

    def now(self, status: str, step: str) -> None:
        """Set what the next heartbeats say: ``ready``, ``working`` or ``blocked``, and a few words."""
        self._status, self._step = status, step[:500]

    def milestone(self, status: str, step: str) -> None:
        """Set it as ``now`` does, and say it at once, for people."""
        self.now(status, step)
        self._conversation.tell("progress", {"status": status, "step": step[:500]})

    def _beat(self) -> None:
        try:
            while not self._conversation.closed:
                self._conversation.tell("heartbeat", {"status": self._status, "step": self._step})
                self._changed.wait(self._every_s)
                self._changed.clear()
        except LinkRefused as error:
            print(f"worker: no more heartbeats: {error}", file=sys.stderr, flush=True)
