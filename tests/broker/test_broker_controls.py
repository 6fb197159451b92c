"""Controls of the broker: a consumer that believes any epoch, one that gives up a whole batch, one that writes a row a forgery, one that leaves the dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from include.broker import inbox, money, reading, recovery
from include.broker.models import Call
from include.broker.process import Process
from include.clock import new_id, now
from include.messages import models
from include.messages.streams import Entry
from tests.broker.conftest import Worker, Yard
from tests.broker.test_broker_delivery import connect


@pytest.mark.parametrize("fenced", [True, False], ids=["as it is", "control: any epoch"])
def test_control_without_the_fence_an_older_epoch_is_taken(yard: Yard, monkeypatch: pytest.MonkeyPatch, fenced: bool) -> None:
    old = yard.attempt()
    yard.rows("UPDATE leases SET ended_at = clock_timestamp()")
    yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=2)
    if not fenced:
        for name, changes in {
            "lock_attempts": {" AND l.ended_at IS NULL": ""},
            "attempts_of": {"AND t.epoch = l.epoch": "AND l.epoch = 1", "AND l.ended_at IS NULL ": ""},
        }.items():
            text = getattr(inbox._SQL, name)
            for right, wrong in changes.items():
                assert text.count(right) == 1
                text = text.replace(right, wrong)
            monkeypatch.setattr(inbox._SQL, name, text)
    _, body, signature = old.make(models.Progress(status="working", step="late"))

    async def take() -> inbox.Handled:
        async with await connect(yard) as connection:
            return await inbox.take(connection, "jarvis", [Entry(old.task_run, "1-1", body, signature)], now())

    taken = asyncio.run(take())
    assert (len(taken.done), len(taken.refused)) == ((0, 1) if fenced else (1, 0))
    assert yard.one("SELECT count(*) FROM processed_messages WHERE epoch = 1") == len(taken.done)


def _consume(yard: Yard, worker: Worker, until: Callable[[], bool]) -> None:
    """A broker in this process reads the worker's stream until it is done."""

    async def go() -> None:
        process = Process("jarvis", yard.settings)
        await process.open()
        process.live = {worker.task_run}
        consumer = reading.Reading(process)
        while not until():
            await consumer.consume()
        await process.close()

    asyncio.run(go())


async def _give_up_the_batch(self: Any, batch: list[Entry]) -> None:
    """The broken variant: what cannot be taken whole is refused whole."""
    try:
        taken = await self.process.transact(lambda c: inbox.take(c, self.process.agent, batch, now()))
    except psycopg.Error as error:
        taken = inbox.Handled([], [(entry, str(error)) for entry in batch], [], False, False)
    await self._after_commit(taken)


@pytest.mark.parametrize("whole", [False, True], ids=["as it is", "control: the batch is refused whole"])
def test_control_a_poisoned_message_takes_its_batch_with_it(yard: Yard, monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    yard.rows("CREATE FUNCTION choke() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'choked'; END $$")
    yard.rows("CREATE TRIGGER choke BEFORE INSERT ON artifacts FOR EACH ROW WHEN (NEW.data->>'text' = 'poison') EXECUTE FUNCTION choke()")
    if whole:
        monkeypatch.setattr(reading.Reading, "_take", _give_up_the_batch)
    worker = yard.attempt()
    for n in range(20):
        worker.tell(models.ArtifactMessage(artifact_type="log", data={"text": "poison" if n == 9 else str(n)}))
    dead = f"dead:{worker.task_run}"
    _consume(yard, worker, lambda: yard.one("SELECT count(*) FROM artifacts") + yard.broker_streams.xlen(dead) == 20)
    assert yard.one("SELECT count(*) FROM artifacts") == (0 if whole else 19)


def test_control_one_at_a_time_forgeries_are_a_flood_of_rows(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BATCH", 1)
    monkeypatch.setattr(reading, "PAUSE_S", 0)
    worker = yard.attempt()
    for _ in range(100):
        worker.put(b"forged", "0" * 64)
    begun = time.monotonic()
    _consume(yard, worker, lambda: yard.broker_streams.xlen(f"dead:{worker.task_run}") == 100)
    rows = yard.one("SELECT count(*) FROM audit_log WHERE action = 'messages.refused'")
    assert rows == 100 > 2 * (time.monotonic() - begun) + 2  # the bar of the test


@pytest.mark.parametrize("left", [False, True], ids=["as it is", "control: the dead are left"])
def test_control_without_recovery_a_dead_brokers_call_stays_open(yard: Yard, monkeypatch: pytest.MonkeyPatch, left: bool) -> None:
    worker = yard.attempt()
    call = Call(request=str(new_id()), agent="jarvis", goal_run=worker.task_run.rpartition("-")[0], task_run=worker.task_run, epoch=1,
                lease=worker.lease, purpose="work", model="claude-sonnet-5-5", address="a", body={}, max_tokens=100)  # fmt: skip
    if left:
        monkeypatch.setattr(recovery._SQL, "owner_is_dead", "SELECT false AS dead WHERE %(owner)s::text IS NOT NULL")

    async def go() -> int:
        async with await connect(yard) as connection:
            reserved = await money.reserve(connection, call, 1_000, "jarvis/dead", False)
            assert reserved is not None
            await money.mark_sent(connection, reserved, "jarvis/dead")
        async with await connect(yard) as connection:
            return await recovery.recover(connection, "jarvis", "jarvis/alive")

    assert asyncio.run(go()) == (0 if left else 1)
    (found,) = yard.rows("SELECT state, cost_micro = reserved_micro AND cost_micro > 0 AS at_worst FROM model_calls")
    assert found == ({"state": "sent", "at_worst": None} if left else {"state": "unknown", "at_worst": True})
    assert (yard.one("SELECT reserved_micro FROM leases") > 0) == left
