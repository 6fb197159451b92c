"""The broker of an agent: ``python -m include.broker --agent jarvis``. Any number of replicas may run at once."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg

from include.broker.answering import Answering
from include.broker.process import Process, log, wait
from include.broker.reading import BLOCK_MS, Reading
from include.broker.sending import Sending
from include.database import queries
from include.errors import AirlockError
from include.messages.streams import StreamsDown
from include.settings import settings

_SQL = queries.load(__file__)
WARM_AFTER_S = 10.0
"""How long the model's SDK (2 CPU-s) waits for the other processes of a start, unless a call needs it before."""


class Broker:
    """One broker process: its loops, each on its own."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.reading = Reading(process)
        self.sending = Sending(process)
        self.answering = Answering(process)

    async def run(self) -> None:
        """Run until cancelled."""
        process, wake = self.process, self.process.wake
        await process.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(process.listen())
            await process.alive.wait()
            log.info("broker of %s is at work as %s", process.agent, process.owner)
            if not process.streams.reads_fast():
                log.warning("the package hiredis is missing: install it, else this broker takes about a third as many messages")
            group.create_task(self._warm())
            group.create_task(_repeat("leases", 2, self.sending.look_at_leases, wake.leases))
            group.create_task(_repeat("outbox", 2, self.sending.send, wake.outbox))
            group.create_task(_repeat("messages", 0, self.reading.consume))
            group.create_task(_repeat("answers", 3600, self.answering.answer_workers, wake.answers))
            group.create_task(_repeat("requests", 3600, self.answering.answer_steps, wake.requests))
            group.create_task(_repeat("recovery", 5, self.answering.recover))
            group.create_task(_repeat("tidying", 5, self.sending.tidy))
            group.create_task(_repeat("pulse", process.settings.pulse_s, self.pulse))

    async def stop(self) -> None:
        """Let calls under way end, then give everything back."""
        await self.answering.stop()
        await self.process.close()

    async def pulse(self) -> None:
        """Say that this broker is there; only while it reads the streams, for it stands for them too (``calm_until``)."""
        if time.monotonic() - self.reading.read_at < self.process.settings.pulse_s + BLOCK_MS / 1000:
            await self.process.transact(self._beat)

    async def _beat(self, connection: Any) -> None:
        await connection.execute(_SQL.beat, {"agent": self.process.agent, "gap": self.process.settings.pulse_gap_s})

    async def _warm(self) -> None:
        """Load the model's SDK once a start is over; what it leaves in memory stays, and is looked through by no later collection."""
        await asyncio.sleep(WARM_AFTER_S)  # a call that comes earlier loads it at once
        await self.process.endpoint.warm()
        gc.collect()
        gc.freeze()
        log.info("the model's SDK is loaded")


async def _repeat(name: str, period_s: float, step: Callable[[], Awaitable[None]], wake: asyncio.Event | None = None) -> None:
    """Do a step for ever: at once, then when woken or after a period; trouble of today is no reason to end."""
    while True:
        try:
            if wake:
                wake.clear()
            await step()
            if period_s:
                await wait(wake or asyncio.Event(), period_s)
        except (StreamsDown, psycopg.Error, AirlockError, OSError, LookupError) as error:
            log.warning("%s: %s; again in 1 s", name, error)
            await asyncio.sleep(1)


async def run(agent: str) -> None:
    """Run a broker until SIGTERM or SIGINT."""
    broker = Broker(Process(agent, settings()))
    running = asyncio.create_task(broker.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        await running
    except asyncio.CancelledError:
        log.info("broker of %s ends", agent)
    finally:
        await broker.stop()


def main() -> None:
    """Be the broker of the agent that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agent", required=True, help="name of the agent")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    asyncio.run(run(parser.parse_args().agent))


if __name__ == "__main__":
    main()
