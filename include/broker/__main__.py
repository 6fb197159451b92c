"""The broker of an agent: ``python -m include.broker --agent jarvis``. Any number of replicas may run at once."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import psycopg

from include import faults
from include.broker import assignments, calls, inbox, recovery
from include.broker.process import Process, log
from include.clock import now
from include.database import queries
from include.errors import AirlockError
from include.messages import outbox
from include.messages.streams import Entry, StreamsDown
from include.settings import settings

_SQL = queries.load(__file__)
BATCH = 500
BLOCK_MS = 250
CLAIM_IDLE_MS = 5_000
CALLS_AT_ONCE = 64
PULSE_S = 2.0
PAUSE_S = 0.5
"""How long a stream is left alone after a message of it was refused: so a flood of forgeries is a few rows a second."""
WARM_AFTER_S = 10.0
"""How long the model's SDK (2 CPU-s) waits for the other processes of a start, unless a call needs it before."""
FAREWELL_S = 5.0
"""How long calls under way may still end by themselves when the process is asked to stop."""


class Broker:
    """The loops of one broker process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._held: dict[tuple[str, str], Entry] = {}
        self._claimed_at = 0.0
        self._read_at = float("-inf")
        self._paused: dict[str, float] = {}
        self._server_run = ""
        self._working: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(CALLS_AT_ONCE)

    async def run(self) -> None:
        """Run until cancelled."""
        process = self.process
        await process.open()
        async with asyncio.TaskGroup() as group:
            group.create_task(process.listen())
            await process.alive.wait()
            log.info("broker of %s is at work as %s", process.agent, process.owner)
            if not process.streams.reads_fast():
                log.warning("the package hiredis is missing: install it, else this broker takes about a third as many messages")
            group.create_task(self._warm())
            group.create_task(self._repeat("leases", 2, self.look_at_leases, "leases"))
            group.create_task(self._repeat("outbox", 2, self.send, "outbox"))
            group.create_task(self._repeat("messages", 0, self.consume))
            group.create_task(self._repeat("answers", 3600, self.answer_new, "answers"))
            group.create_task(self._repeat("requests", 3600, self.answer_requests_new, "requests"))
            group.create_task(self._repeat("recovery", 5, self.recover))
            group.create_task(self._repeat("tidying", 5, self.tidy))
            group.create_task(self._repeat("pulse", PULSE_S, self.pulse))

    async def stop(self) -> None:
        """Let calls under way end, then give everything back."""
        if self._working:
            await asyncio.wait(self._working.values(), timeout=FAREWELL_S)
        await self.process.close()

    async def _repeat(self, name: str, period_s: float, step: Callable[[], Awaitable[None]], wake: str | None = None) -> None:
        """Do a step for ever: at once, then when woken or after a period; trouble of today is no reason to end."""
        while True:
            try:
                if wake:
                    self.process.wake[wake].clear()
                await step()
                if period_s:
                    await _wait(self.process.wake[wake] if wake else asyncio.Event(), period_s)
            except (StreamsDown, psycopg.Error, AirlockError, OSError, LookupError) as error:
                log.warning("%s: %s; again in 1 s", name, error)
                await asyncio.sleep(1)

    async def _warm(self) -> None:
        """Load the model's SDK once a start is over; what it leaves in memory stays, and is looked through by no later collection."""
        await asyncio.sleep(WARM_AFTER_S)  # a call that comes earlier loads it at once
        await self.process.endpoint.warm()
        gc.collect()
        gc.freeze()
        log.info("the model's SDK is loaded")

    # -- leases and messages to workers --------------------------------------------------------------------------------

    async def look_at_leases(self) -> None:
        """Know the live leases; assign the new, cancel the revoked."""
        process = self.process
        rows = await process.transact(self._live)
        process.live = {row["task_run"] for row in rows}
        process.wake["live"].set()
        for task_run, epoch in await process.transact(lambda c: assignments.to_assign(c, process.agent)):
            await self._assign(task_run, epoch)
        await process.transact(lambda c: assignments.cancel_revoked(c, process.agent))
        await process.transact(lambda c: assignments.tell_renewed(c, process.agent))

    async def _assign(self, task_run: str, epoch: int) -> None:
        process = self.process
        try:
            if await process.transact(lambda c: assignments.assign(c, process.streams, process.agent, task_run, epoch, process.settings)):
                log.info("assigned %s/%s", task_run, epoch)
        except AirlockError as error:  # of this lease alone: the others must not wait for it
            log.error("cannot assign %s/%s: %s", task_run, epoch, error)

    async def _live(self, connection: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = await (await connection.execute(_SQL.live_leases, {"agent": self.process.agent})).fetchall()
        return rows

    async def send(self) -> None:
        """Send what waits in the outbox."""
        process = self.process
        while await process.transact(lambda c: outbox.send_unsent(c, process.streams, process.agent)):
            pass

    async def tidy(self) -> None:
        """Streams that the server lost are filled again; those of ended attempts are deleted."""
        process = self.process
        live = {row["task_run"] for row in await process.transact(self._live)}
        server_run = await process.streams.server_run()
        # Another run of the server (or ours) may have lost the last second of what it had acknowledged: all of it goes out once more.
        lost = sorted(live) if server_run != self._server_run else await process.streams.without_inbox(sorted(live))
        if lost:
            await process.transact(lambda c: outbox.send_again(c, lost))
            process.wake["outbox"].set()
        self._server_run = server_run
        names = {"agent": process.agent, "task_runs": sorted(await process.streams.task_runs() - live)}

        async def over(connection: Any) -> list[str]:
            return [row["id"] for row in await (await connection.execute(_SQL.over_among, names)).fetchall()]

        await process.streams.delete(await process.transact(over))

    # -- messages from workers -------------------------------------------------------------------------------------------

    async def consume(self) -> None:
        """Read, take, acknowledge."""
        process = self.process
        if not process.live:
            await process.streams.ping()
            self._read_at = time.monotonic()
            await _wait(process.wake["live"], 0.5)
            process.wake["live"].clear()
            return
        batch = await self._read()
        for start in range(0, len(batch), BATCH):
            await self._take(batch[start : start + BATCH])

    async def _read(self) -> list[Entry]:
        """What is held, new or left by a dead consumer; of each stream its share, so that a flood in one delays the others by a batch."""
        process, moment = self.process, time.monotonic()
        self._paused = {name: until for name, until in self._paused.items() if until > moment}
        share = max(1, BATCH // len(process.live))
        if names := process.live - self._paused.keys():
            entries = await process.streams.read(names, share, BLOCK_MS)
        else:
            await process.streams.ping()
            await asyncio.sleep(BLOCK_MS / 1000)
            entries = []
        self._read_at = time.monotonic()
        if self._read_at - self._claimed_at > CLAIM_IDLE_MS / 1000:
            self._claimed_at = self._read_at
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
            taken = inbox.Taken([], refused, [], False, False)
        faults.point("broker.take.after-commit")
        await self._after_commit(taken)
        return None

    async def _after_commit(self, taken: inbox.Taken) -> None:
        if taken.queued:
            self.process.wake["outbox"].set()
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
            self.process.wake["answers"].set()

    async def pulse(self) -> None:
        """Say that this broker is there; only while it reads the streams, for it stands for them too (``calm_until``)."""
        if time.monotonic() - self._read_at < PULSE_S + BLOCK_MS / 1000:
            await self.process.transact(self._beat)

    async def _beat(self, connection: Any) -> None:
        await connection.execute(_SQL.beat, {"agent": self.process.agent})

    # -- model calls -----------------------------------------------------------------------------------------------------

    async def answer_new(self) -> None:
        """Answer what workers ask, as soon as it is in."""
        await self._answer(0)

    async def answer_requests_new(self) -> None:
        """Answer what Airflow's steps ask, as soon as it is in."""
        await self._answer_requests(0)

    async def recover(self) -> None:
        """End what dead brokers left open; answer what no replica took up for three seconds."""
        process = self.process
        if ended := await process.transact(lambda c: recovery.recover(c, process.agent, process.owner)):
            log.warning("ended %d model call(s) of brokers that are gone", ended)
        await self._answer(3)
        await self._answer_requests(3)

    async def _answer(self, age_s: float) -> None:
        for row in await self._rows(_SQL.to_answer, age_s):
            self._start(row["idempotency_key"], calls.answer_message(self.process, row))

    async def _answer_requests(self, age_s: float) -> None:
        for row in await self._rows(_SQL.requested, age_s):
            self._start(str(row["id"]), calls.answer_request(self.process, row))

    async def _rows(self, statement: str, age_s: float) -> list[dict[str, Any]]:
        names = {"agent": self.process.agent, "age_s": age_s}

        async def fetch(connection: Any) -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = await (await connection.execute(statement, names)).fetchall()
            return rows

        return await self.process.transact(fetch)

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


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


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
