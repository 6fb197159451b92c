"""What is asked of the agent's models: taken up as soon as it is in, so many calls at once; what dead brokers left open is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from include.agents import requests as model_requests
from include.broker import handlers, recovery, requests
from include.broker.models import Pending
from include.broker.process import Process, log
from include.database import queries, rows

_SQL = queries.load(__file__)
CALLS_AT_ONCE = 64
LEFT_S = 3.0
"""So long after it was asked, what no replica has taken up is taken up by whoever sees it."""
FAREWELL_S = 5.0
"""How long calls under way may still end by themselves when the process is asked to stop."""


class Answering:
    """The loops of a broker process that call models."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._working: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def answer_workers(self, age_s: float = 0.0) -> None:
        """Take up what workers ask.

        Args:
            age_s: only what was asked so many seconds ago.
        """
        names = {"agent": self.process.agent, "types": handlers.ASKING, "age_s": age_s}
        for pending in await self.process.transact(lambda c: rows.aevery(c, Pending, _SQL.to_answer, **names)):
            self._start(pending.idempotency_key, handlers.answer(self.process, pending))

    async def answer_steps(self, age_s: float = 0.0) -> None:
        """Take up what Airflow's steps ask. Parameters as in ``answer_workers``."""
        for request in await self.process.transact(lambda c: model_requests.waiting(c, self.process.agent, age_s)):
            self._start(str(request.id), requests.answer(self.process, request))

    async def recover(self) -> None:
        """End what dead brokers left open, and what no task of ours works on; answer what no replica took up."""
        process = self.process
        if ended := await process.transact(lambda c: recovery.recover_own(c, process.agent, process.owner, self._working)):
            log.warning("ended %d model call(s) of our own that nobody worked on", ended)
        if ended := await process.transact(lambda c: recovery.recover(c, process.agent, process.owner)):
            log.warning("ended %d model call(s) of brokers that are gone", ended)
        await self.answer_workers(LEFT_S)
        await self.answer_steps(LEFT_S)

    async def stop(self) -> None:
        """Let calls under way end."""
        if self._working:
            await asyncio.wait(self._working.values(), timeout=FAREWELL_S)

    def _start(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        if key in self._working:
            work.close()
            return
        task = asyncio.create_task(self._guarded(key, work))
        self._working[key] = task
        task.add_done_callback(lambda _: self._working.pop(key, None))

    async def _guarded(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        async with self._places:
            try:
                await work
            except Exception:
                log.exception("the model call for %s failed in an unforeseen way", key)
