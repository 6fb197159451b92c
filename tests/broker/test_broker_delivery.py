"""Delivery: every message one to five times, shuffled, over four consumers: as many effects as keys. The seed's order as control."""

from __future__ import annotations

import asyncio
import json
import random

import psycopg
import pytest
from psycopg.rows import dict_row

from include.broker import inbox
from include.clock import now
from include.messages import models
from include.messages.streams import Entry, Streams
from tests.kit.scale import count

ATTEMPTS, KEYS = 20, count(1_000, 10_000)
CONSUMERS = 4


def connect(yard):  # type: ignore[no-untyped-def]
    """A connection as a broker has it; awaited, its block is one transaction."""
    return psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row)


def _deliveries(workers) -> list[Entry]:  # type: ignore[no-untyped-def]
    rng = random.Random(4)
    entries = []
    for number in range(1, KEYS + 1):
        worker = workers[number % len(workers)]
        _, body, signature = worker.make(models.Progress(status="working", step=f"step {number}"))
        entries += [Entry(worker.task_run, f"{number}-{copy}", body, signature) for copy in range(rng.randint(1, 5))]
    rng.shuffle(entries)
    return entries


@pytest.mark.sized
def test_as_many_effects_as_keys(yard, capsys) -> None:  # type: ignore[no-untyped-def]
    """Seed defects D2 and D3 (R4): four consumers at once, each on its own connection, get every message in any order and number."""
    run = yard.goal_run()
    entries = _deliveries([yard.attempt(run, f"t{number}") for number in range(ATTEMPTS)])

    async def consume(share: list[Entry], rng: random.Random) -> int:
        refused = 0
        async with await connect(yard) as connection:
            while share:
                size = rng.randint(1, 300)
                batch, share = share[:size], share[size:]
                refused += len((await inbox.take(connection, "jarvis", batch, now())).refused)
                await connection.commit()
        return refused

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(consume(entries[i::CONSUMERS], random.Random(i)) for i in range(CONSUMERS)))

    refused = sum(asyncio.run(all_of_them()))
    steps = [row["detail"] for row in yard.rows("SELECT detail FROM task_events WHERE kind = 'milestone'")]
    with capsys.disabled():
        print(f"\n  delivery: attempted {len(entries):,}, keys {KEYS:,}, effects {len(steps):,}, lost {KEYS - len(set(steps))}, "
              f"duplicated {len(steps) - len(set(steps))}, unexpected {refused}")  # fmt: skip
    assert refused == 0 and sorted(steps) == sorted(f"step {n}" for n in range(1, KEYS + 1))
    assert len(entries) > 2 * KEYS
    assert {row["taken"] for row in yard.rows("SELECT taken::text FROM leases")} == {f"{{[1,{KEYS // ATTEMPTS + 1})}}"}


@pytest.mark.parametrize("acknowledge_first", [False, True], ids=["commit, then acknowledge", "control: acknowledge, then commit"])
def test_a_consumer_that_dies_in_between_loses_nothing(yard, acknowledge_first: bool) -> None:  # type: ignore[no-untyped-def]
    """Seed defect D13: what a dead consumer had read is claimed by another. The control acknowledges first, and loses the message."""
    worker = yard.attempt()
    worker.tell(models.Progress(status="working", step="kept"))

    async def consume(name: str, *, dies: bool) -> int:
        streams = Streams(yard.settings.valkey_url("broker"), name)
        entries = await streams.read([worker.task_run], 10, 100) or await streams.claim([worker.task_run], 10, 0)
        async with await connect(yard) as connection:
            if acknowledge_first:
                await streams.acknowledge(entries)
            await inbox.take(connection, "jarvis", entries, now())
            if dies:
                await connection.rollback()
        await streams.close()
        return len(entries)

    assert asyncio.run(consume("first", dies=True)) == 1
    found = asyncio.run(consume("second", dies=False))
    effects = yard.one("SELECT count(*) FROM task_events WHERE kind = 'milestone'")
    assert (found, effects) == ((0, 0) if acknowledge_first else (1, 1))


def test_replayed_reordered_and_crossed_messages(yard, capsys) -> None:  # type: ignore[no-untyped-def]
    """Seed defect D12 and S1 at the database: old epochs, other tasks, other bodies under a taken number; replays change nothing."""
    run = yard.goal_run()
    old = yard.attempt(run, "a")
    stale = [old.make(models.Progress(status="working", step=f"stale {n}"))[1:] for n in range(200)]
    yard.rows("UPDATE leases SET ended_at = clock_timestamp()")
    worker, other = yard.attempt(run, "a", epoch=2), yard.attempt(run, "b")
    good = [worker.make(models.Progress(status="working", step=f"step {n}"))[1:] for n in range(200)]
    again = [worker.make(models.Progress(status="working", step="another"), seq=n + 1)[1:] for n in range(200)]
    key = [worker.make(models.Progress(status="working", step="a known key"), key=worker_key(body))[1:] for body, _ in good]

    async def deliver(task_run: str, messages: list[tuple[bytes, str]]) -> tuple[int, int]:
        entries = [Entry(task_run, f"1-{n}", *message) for n, message in enumerate(messages)]
        async with await connect(yard) as connection:
            taken = await inbox.take(connection, "jarvis", entries, now())
        return len(taken.done), len(taken.refused)

    def run_all() -> dict[str, tuple[int, int]]:
        return {
            "valid, reordered": asyncio.run(deliver(worker.task_run, good[::-1])),
            "replayed": asyncio.run(deliver(worker.task_run, good)),
            "of an older epoch": asyncio.run(deliver(worker.task_run, stale)),
            "of another task": asyncio.run(deliver(other.task_run, good)),
            "another body under a taken number": asyncio.run(deliver(worker.task_run, again)),
            "a taken key under a fresh number": asyncio.run(deliver(worker.task_run, key)),
        }

    found = run_all()
    with capsys.disabled():
        print(f"\n  (accepted, refused): {found}")
    assert list(found.values()) == [(200, 0), (200, 0), (0, 200), (0, 200), (0, 200), (0, 200)]
    steps = [row["detail"] for row in yard.rows("SELECT detail FROM task_events WHERE kind = 'milestone' AND detail LIKE 'step %%'")]
    assert steps == [f"step {n}" for n in range(200)], "in their own order, whatever the order of delivery"
    assert yard.rows("SELECT taken::text FROM leases WHERE epoch = 2") == [{"taken": "{[1,201)}"}]
    audited = yard.rows("SELECT actor, action, subject, (detail->>'count')::int AS count FROM audit_log ORDER BY position")
    assert [(row["actor"], row["action"], row["count"]) for row in audited] == [("broker/jarvis", "messages.refused", 200)] * 4
    assert [row["subject"] for row in audited] == [f"{w.task_run}/{w.epoch}" for w in (worker, other, worker, worker)]


def worker_key(body: bytes) -> str:
    return str(json.loads(body)["idempotencyKey"])


def test_an_ending_waits_for_every_lower_number_and_one_waits_for_each_attempt(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    beat, told = (worker.make(p)[1:] for p in (models.Heartbeat(status="working", step="b"), models.Progress(status="working", step="t")))
    ending = worker.make(models.TaskComplete(summary="", commit=None))[1:]
    second = worker.make(models.TaskFailed(kind="gave_up", reason="no"))[1:]

    async def deliver(*messages: tuple[bytes, str]) -> inbox.Handled:
        async with await connect(yard) as connection:
            return await inbox.take(connection, "jarvis", [Entry(worker.task_run, f"1-{n}", *m) for n, m in enumerate(messages)], now())

    first = asyncio.run(deliver(ending, told, ending, second))
    assert [entry.stream_id for entry in first.held] == ["1-0"], "a copy of what waits is done with, another ending is refused"
    assert [entry.stream_id for entry in first.done] == ["1-1", "1-2"] and len(first.refused) == 1
    assert not yard.one("SELECT finished_at IS NOT NULL FROM attempts")
    assert asyncio.run(deliver(ending, beat)).held == [] and yard.one("SELECT state FROM attempts") == "COMPLETING"


def test_more_than_a_thousand_gaps_are_refused(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    beats = [worker.make(models.Heartbeat(status="working", step="x"), seq=seq)[1:] for seq in range(2, 2_402, 2)]
    entries = [Entry(worker.task_run, f"1-{n}", *message) for n, message in enumerate(beats)]

    async def take() -> inbox.Handled:
        async with await connect(yard) as connection:
            return await inbox.take(connection, "jarvis", entries, now())

    taken = asyncio.run(take())
    assert (len(taken.done), len(taken.refused)) == (1_000, 200) and "gaps" in taken.refused[0][1]


def test_control_look_then_act_then_insert_has_duplicates(yard) -> None:  # type: ignore[no-untyped-def]
    """Seed defect D3, as the seed has it."""
    # The seed's order: is the key known? no: act, then insert it. Four consumers get the same 200 messages at once.
    dsn = yard.settings.dsn("owner")
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE seed_keys (key text)")
        connection.execute("CREATE TABLE seed_effects (key text)")

    async def consume() -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for number in range(200):
                known = await connection.execute("SELECT FROM seed_keys WHERE key = %s", [str(number)])
                if await known.fetchone() is None:
                    await connection.execute("INSERT INTO seed_effects VALUES (%s)", [str(number)])
                    await connection.execute("INSERT INTO seed_keys VALUES (%s)", [str(number)])

    async def all_of_them() -> None:
        await asyncio.gather(*(consume() for _ in range(CONSUMERS)))

    asyncio.run(all_of_them())
    assert yard.one("SELECT count(*) FROM seed_effects") > 200


def test_naughty_strings_reach_the_database_unchanged(yard, corpora) -> None:  # type: ignore[no-untyped-def]
    strings = json.loads((corpora / "blns/blns.json").read_text())
    worker = yard.attempt()
    entries = []
    for text in strings:
        _, body, signature = worker.make(models.ArtifactMessage(artifact_type="log", data={"text": text, text: 1}))
        entries.append(Entry(worker.task_run, "1-1", body, signature))

    async def take() -> inbox.Handled:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            return await inbox.take(connection, "jarvis", entries, now())

    taken = asyncio.run(take())
    rows = yard.rows("SELECT data->>'text' AS text FROM artifacts")
    assert taken.refused == [] and sorted(row["text"] for row in rows) == sorted(strings) and len(rows) == 515
    assert len(worker.inbox()) == 0 and yard.one("SELECT count(*) FROM outbox WHERE type = 'receipt'") == 515


def test_a_flood_of_forged_messages_is_one_event_a_batch(yard) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    _, body, signature = worker.make(models.Heartbeat(status="working", step="x"))
    good = Entry(worker.task_run, "1-0", body, signature)
    forged = [Entry(worker.task_run, f"2-{n}", body.replace(b'"x"', b'"y"'), signature) for n in range(300)]

    async def take() -> inbox.Handled:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            return await inbox.take(connection, "jarvis", [*forged, good], now())

    taken = asyncio.run(take())
    assert (len(taken.refused), taken.done) == (300, [good])
    assert yard.rows("SELECT detail FROM audit_log")[0]["detail"]["count"] == 300 and yard.one("SELECT count(*) FROM audit_log") == 1
    assert [row["detail"][:19] for row in yard.rows("SELECT detail FROM task_events WHERE kind = 'milestone'")] == ["refused 300 message"]
    assert yard.one("SELECT step FROM attempts") == "x"
