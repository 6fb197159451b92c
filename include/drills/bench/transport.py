"""``./airlock bench transport``: one broker against the raw streams and against one transaction a message, in the same run.

The same mix over 100 task streams for each: XREADGROUP and XACK alone; our broker's own loop; one transaction, one acknowledgement a
message. Then the round trip of a permission request through a broker process: put, read, verified, decided, committed, answered, read.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import time
from typing import Any

import psycopg
import redis
import redis.asyncio
from psycopg.rows import dict_row

from include.broker.process import Process
from include.broker.reading import BATCH, BLOCK_MS, Reading
from include.broker.sending import Sending
from include.clock import now
from include.database import queries, rows
from include.database.unit_of_work import transaction
from include.drills.bench.report import Figures, percentile
from include.drills.bench.servers import Servers, temporary_servers, wait_for
from include.drills.bench.workers import Worker, end_workers, make_workers, mixed_payload
from include.errors import Unavailable
from include.messages import models, streams
from include.messages.envelopes import Sender, open_envelope
from include.messages.signatures import verify
from include.settings import Settings
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)
STREAMS = 100
SLOW_MESSAGES = 1_000
"""So many are enough for one transaction a message."""
ASKERS, ASKED_PER_S, ASKED = 10, 50.0, 1_000


def run(messages: int, asked: int = ASKED) -> Figures:
    """Measure the messages per second of three consumers, and the round trip of permission requests.

    Args:
        messages: how many the raw streams and our broker take.
        asked: how many permissions are asked for.
    """
    with temporary_servers(shared_buffers="256MB") as servers:
        settings = servers.settings
        raw, raw_s = _timed(settings, messages, _raw)
        ours, ours_s = _timed(settings, messages, _ours)
        single, single_s = _timed(settings, min(messages, SLOW_MESSAGES), _one_by_one)
        trips = _round_trips(servers, asked)
    of_raw, of_ours, of_single = raw / raw_s, ours / ours_s, single / single_s
    measured = [
        _row("XREADGROUP and XACK alone, nothing kept", raw, of_raw),
        _row("our broker: verified, committed, then acknowledged", ours, of_ours),
        _row("one transaction and one XACK a message, verified", single, of_single),
        _row(f"permission request, round trip at {ASKED_PER_S:g} a second", len(trips), None, trips),
    ]
    return Figures(
        title=f"Transport: {STREAMS} task streams; 70 % heartbeats, 20 % progress, 9 % artifacts, 1 % questions",
        rows=measured,
        ratios={"ours_to_raw": round(of_ours / of_raw, 2), "ours_to_one_by_one": round(of_ours / of_single, 2)},
        notes=["PostgreSQL with fsync, Valkey with an append-only file synced every second, all on this machine."],
    )


def _row(what: str, count: int, rate: float | None, trips: list[float] | None = None) -> dict[str, Any]:
    milliseconds = {f"p{share}_ms": round(percentile(trips, share / 100) * 1000, 2) if trips else None for share in (50, 95, 99)}
    return {"what": what, "messages": count, "messages_per_s": None if rate is None else round(rate, 1), **milliseconds}


# -- messages per second --------------------------------------------------------------------------------------------------------


def _timed(settings: Settings, messages: int, variant: Any) -> tuple[int, float]:
    """Fill the streams, then let a variant take all of it; returns how many and in how many seconds."""
    run_, workers = make_workers(STREAMS)
    with redis.Redis.from_url(settings.valkey_url("relay")) as relay:
        _fill(relay, workers, messages)
    begun = time.perf_counter()
    asyncio.run(variant(settings, workers, messages))
    seconds = time.perf_counter() - begun
    if variant is not _raw and (kept := _kept(run_)) != messages:
        raise Unavailable(f"{messages - kept} of {messages} messages are not in the database: this is a defect, please report it.")
    end_workers(run_)
    with redis.Redis.from_url(settings.valkey_url("broker")) as broker:
        broker.delete(*(streams.out_stream(worker.task_run) for worker in workers))
    return messages, seconds


def _fill(relay: redis.Redis, workers: list[Worker], messages: int) -> None:
    rng = random.Random(6)
    for start in range(0, messages, 1_000):
        pipeline = relay.pipeline(transaction=False)
        for number in range(start, min(start + 1_000, messages)):
            worker = workers[number % len(workers)]
            _, body, signature = worker.make(mixed_payload(rng, number))
            pipeline.xadd(streams.out_stream(worker.task_run), {"e": body, "s": signature})
        pipeline.execute()


def _kept(run_: str) -> int:
    with transaction("owner") as connection:
        return int(rows.scalar(connection, _SQL.numbers_in, run=run_))


async def _raw(settings: Settings, workers: list[Worker], messages: int) -> None:
    source = streams.Streams(settings.valkey_url("broker"), "raw")
    names = [worker.task_run for worker in workers]
    while messages > 0:
        entries = await source.read(names, BATCH // len(names), BLOCK_MS)
        await source.acknowledge(entries)
        messages -= len(entries)
    await source.close()


async def _ours(settings: Settings, workers: list[Worker], messages: int) -> None:
    process = Process("jarvis", settings)
    reading = Reading(process)
    await process.open()
    process.live = {worker.task_run for worker in workers}
    sending = asyncio.create_task(_send(Sending(process)))
    pending = redis.asyncio.Redis.from_url(settings.valkey_url("broker"))
    done = 0
    while done < messages:
        await reading.consume()
        done = await _acknowledged(pending, workers, done, messages)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    await pending.aclose()
    await process.close()


async def _send(sending: Sending) -> None:
    """Send what was queued while further messages are taken, as the process does."""
    while True:
        await sending.process.wake.outbox.wait()
        sending.process.wake.outbox.clear()
        await sending.send()


async def _acknowledged(client: redis.asyncio.Redis, workers: list[Worker], done: int, messages: int) -> int:
    """Count the acknowledged messages: every batch is full until the streams are drained, and only then is it worth asking."""
    if done + BATCH < messages:
        return done + BATCH
    pipeline = client.pipeline(transaction=False)
    for worker in workers:
        pipeline.xinfo_groups(streams.out_stream(worker.task_run))
    groups = [reply[0] for reply in await pipeline.execute()]
    return messages - sum(int(group.get("lag") or 0) + int(group.get("pending")) for group in groups)


async def _one_by_one(settings: Settings, workers: list[Worker], messages: int) -> None:
    source = streams.Streams(settings.valkey_url("broker"), "one")
    by_name = {worker.task_run: worker for worker in workers}
    async with await psycopg.AsyncConnection.connect(settings.dsn("broker"), row_factory=dict_row) as connection:
        while messages > 0:
            for entry in await source.read(by_name, BATCH // len(by_name), BLOCK_MS):
                await _take_one(connection, by_name[entry.task_run], entry)
                await source.acknowledge([entry])
                messages -= 1
    await source.close()


async def _take_one(connection: Any, worker: Worker, entry: streams.Entry) -> None:
    moment = now()
    envelope = open_envelope("out", entry.body, entry.signature, Sender(AttemptRef(worker.task_run, 1), worker.out_key, moment), moment)
    names = {"task_run": worker.task_run, "seq": envelope.seq, "key": f"{worker.task_run}/{envelope.seq}", "id": envelope.id,
             "type": envelope.type, "digest": hashlib.sha256(entry.body).hexdigest(), "lease": worker.lease}  # fmt: skip
    async with connection.transaction():
        if await rows.ascalar(connection, _SQL.take_number, **names):
            await connection.execute(_SQL.keep_event, names | {"detail": entry.body.decode()})
            await connection.execute(_SQL.keep_beat, names)


# -- the round trip of a permission request ------------------------------------------------------------------------------------------


def _round_trips(servers: Servers, count: int) -> list[float]:
    run_, workers = make_workers(ASKERS)
    os.environ["AIRLOCK_OFFLINE"] = "true"
    broker = servers.python("broker", "-m", "include.broker", "--agent", "jarvis")
    # A broker that starts loads the model's SDK beside its work, for some seconds: what is measured here is a broker that is up.
    wait_for("the broker is up", lambda: "SDK is loaded" in servers.log("broker") or broker.poll() is not None)
    trips = asyncio.run(_ask_all(servers.settings, workers, count))
    end_workers(run_)
    return trips


async def _ask_all(settings: Settings, workers: list[Worker], count: int) -> list[float]:
    relay = redis.asyncio.Redis.from_url(settings.valkey_url("relay"))
    asked: dict[str, float] = {}
    took: list[float] = []
    assigned = [asyncio.Event() for _ in workers]
    readers = [asyncio.create_task(_read_answers(settings, *pair, asked, took)) for pair in zip(workers, assigned, strict=True)]
    await asyncio.wait_for(asyncio.gather(*(event.wait() for event in assigned)), 60)
    begun = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, begun + number / ASKED_PER_S - time.perf_counter()))
        worker = workers[number % len(workers)]
        id_, body, signature = worker.make(models.PermissionRequest(capability="test", detail={"number": number}, reason="bench"))
        asked[str(id_)] = time.perf_counter()
        await relay.xadd(streams.out_stream(worker.task_run), {"e": body, "s": signature})
    end = time.perf_counter() + 10
    while len(took) < count and time.perf_counter() < end:
        await asyncio.sleep(0.05)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    await relay.aclose()
    if len(took) < count:
        raise Unavailable(f"{count - len(took)} of {count} permission requests were not answered: this is a defect, please report it.")
    return took


async def _read_answers(settings: Settings, worker: Worker, assigned: asyncio.Event, asked: dict[str, float], took: list[float]) -> None:
    """Read one worker's inbox as its relay does; each answer counts once, and only with a good signature."""
    relay = redis.asyncio.Redis.from_url(settings.valkey_url("relay"))
    stream, last = streams.in_stream(worker.task_run), "0-0"
    try:
        while True:
            reply: Any = await relay.xread({stream: last}, block=1_000)
            batches = list(reply.values()) if isinstance(reply, dict) else [entries for _, entries in reply or []]
            for entry_id, fields in _flat(batches):
                last = entry_id
                body, signature = fields[b"e"], fields[b"s"].decode()
                if verify(worker.in_key, worker.task_run, "in", body, signature):
                    assigned.set()
                    if begun := asked.pop(json.loads(body).get("replyTo") or "", None):
                        took.append(time.perf_counter() - begun)
    finally:
        await relay.aclose()


def _flat(batches: list[Any]) -> list[tuple[Any, dict[bytes, bytes]]]:
    entries = batches[0] if batches else []
    return list(entries[0]) if entries and isinstance(entries[0], list) else list(entries)
