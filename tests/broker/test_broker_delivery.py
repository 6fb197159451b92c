"""Delivery: every message one to five times, shuffled, over four consumers: as many effects as keys. The seed's order as control."""

from __future__ import annotations

import asyncio
import random

import psycopg
from psycopg.rows import dict_row

from include.broker import inbox
from include.clock import now
from include.messages import models
from include.messages.streams import Entry

KEYS = 1_000
CONSUMERS = 4


def _deliveries(worker) -> list[Entry]:  # type: ignore[no-untyped-def]
    rng = random.Random(4)
    entries = []
    for number in range(1, KEYS + 1):
        _, body, signature = worker.make(models.Progress(status="working", step=f"step {number}"))
        entries += [Entry(worker.task_run, f"{number}-{copy}", body, signature) for copy in range(rng.randint(1, 5))]
    rng.shuffle(entries)
    return entries


def test_as_many_effects_as_keys(yard, capsys) -> None:  # type: ignore[no-untyped-def]
    entries = _deliveries(yard.attempt())
    dsn = yard.settings.dsn("broker")

    async def consume(share: list[Entry], rng: random.Random) -> int:
        refused = 0
        while share:
            size = rng.randint(1, 60)
            batch, share = share[:size], share[size:]
            async with await psycopg.AsyncConnection.connect(dsn, row_factory=dict_row) as connection:
                refused += len((await inbox.take(connection, "jarvis", batch, now())).refused)
        return refused

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(consume(entries[i::CONSUMERS], random.Random(i)) for i in range(CONSUMERS)))

    refused = sum(asyncio.run(all_of_them()))
    steps = [row["detail"] for row in yard.rows("SELECT detail FROM task_events WHERE kind = 'milestone'")]
    with capsys.disabled():
        print(f"\n  delivery: attempted {len(entries)}, keys {KEYS}, effects {len(steps)}, lost {KEYS - len(set(steps))}, "
              f"duplicated {len(steps) - len(set(steps))}, unexpected {refused}")  # fmt: skip
    assert refused == 0 and sorted(steps) == sorted(f"step {n}" for n in range(1, KEYS + 1))
    assert len(entries) > 2 * KEYS


def test_control_look_then_act_then_insert_has_duplicates(yard) -> None:  # type: ignore[no-untyped-def]
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
    import json

    strings = json.loads((corpora / "blns/blns.json").read_text())
    worker = yard.attempt()
    entries = []
    for text in strings:
        _, body, signature = worker.make(models.ArtifactMessage(artifact_type="log", data={"text": text, text: 1}))
        entries.append(Entry(worker.task_run, "1-1", body, signature))

    async def take() -> inbox.Taken:
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

    async def take() -> inbox.Taken:
        async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
            return await inbox.take(connection, "jarvis", [*forged, good], now())

    taken = asyncio.run(take())
    assert (len(taken.refused), taken.done) == (300, [good])
    assert [row["detail"][:19] for row in yard.rows("SELECT detail FROM task_events WHERE kind = 'milestone'")] == ["refused 300 message"]
    assert yard.one("SELECT step FROM attempts") == "x"
