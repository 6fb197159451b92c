"""What comes from workers: read the streams, take batches of messages, acknowledge them once they are committed."""

from __future__ import annotations

import asyncio
import time

import psycopg

from include import faults
from include.broker import inbox
from include.broker.process import Process, wait
from include.clock import now
from include.errors import AirlockError
from include.messages.streams import Entry

BATCH = 500
BLOCK_MS = 250
CLAIM_IDLE_MS = 5_000
PAUSE_S = 0.5
"""How long a stream is left alone after a message of it was refused: so a flood of forgeries is a few rows a second."""


class Reading:
    """The loop of a broker process that reads the streams. ``read_at``: when it read them last."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.read_at = float("-inf")
        self._held: dict[tuple[str, str], Entry] = {}
        self._claimed_at = 0.0
        self._paused: dict[str, float] = {}

    async def consume(self) -> None:
        """Read what came, take it batch by batch, acknowledge what was taken."""
        process = self.process
        if not process.live:
            await process.streams.ping()
            self.read_at = time.monotonic()
            await wait(process.wake.live, 0.5)
            process.wake.live.clear()
            return
        batch = await self._read()
        for start in range(0, len(batch), BATCH):
            await self._take(batch[start : start + BATCH])

    async def _read(self) -> list[Entry]:
        """Read what is held, new or left by a dead consumer; of each stream its share: a flood in one delays the others by a batch."""
        process, moment = self.process, time.monotonic()
        self._paused = {name: until for name, until in self._paused.items() if until > moment}
        share = max(1, BATCH // len(process.live))
        if names := process.live - self._paused.keys():
            entries = await process.streams.read(names, share, BLOCK_MS)
        else:
            await process.streams.ping()
            await asyncio.sleep(BLOCK_MS / 1000)
            entries = []
        self.read_at = time.monotonic()
        if self.read_at - self._claimed_at > CLAIM_IDLE_MS / 1000:
            self._claimed_at = self.read_at
            self._held.clear()  # what is still held is claimed here again
            entries += await process.streams.claim(process.live, share, CLAIM_IDLE_MS)
        return list({**self._held, **{(entry.task_run, entry.stream_id): entry for entry in entries}}.values())

    async def _take(self, batch: list[Entry]) -> None:
        try:
            taken = await self.process.transact(lambda c: inbox.take(c, self.process.agent, batch, now()))
        except (psycopg.Error, AirlockError, ValueError, LookupError) as error:
            if len(batch) > 1:  # one of them cannot be handled: find it, and let the others pass
                middle = len(batch) // 2
                await self._take(batch[:middle])
                return await self._take(batch[middle:])
            refused = [(batch[0], f"it cannot be handled: {type(error).__name__}: {error}"[: inbox.MOST_WORDS])]
            await self.process.transact(lambda c: inbox.tell_refused(c, self.process.agent, refused, {}))
            taken = inbox.Handled([], refused, [], False, False)
        faults.point("broker.take.after-commit")
        await self._after_commit(taken)
        return None

    async def _after_commit(self, taken: inbox.Handled) -> None:
        if taken.queued:
            self.process.wake.outbox.set()
        if taken.refused:
            await self.process.streams.bury(taken.refused)
            self._paused.update({entry.task_run: time.monotonic() + PAUSE_S for entry, _ in taken.refused})
        gone = [*taken.done, *(entry for entry, _ in taken.refused)]
        await self.process.streams.acknowledge(gone)
        faults.point("broker.acknowledge.after")
        for entry in gone:
            self._held.pop((entry.task_run, entry.stream_id), None)
        self._held.update({(entry.task_run, entry.stream_id): entry for entry in taken.held})
        if taken.asked:
            self.process.wake.answers.set()
