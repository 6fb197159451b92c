"""R10: one triggerer, 500 leases whose deadlines, heartbeats and tokens come due: how late each is revoked, and that none is missed."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from typing import Any

import pytest

from include.flow import watch
from include.settings import Settings
from tests.kit.quiet import Figure
from tests.kit.scale import count, limit, patience
from tests.leases.world import World, run, until, with_settings

TIMEOUT_S = int(limit(6))
ALLOWED_S = 5.0
MANY, LAST_S = count(100, 500), limit(count(9, 16))


class Due:
    """When each lease comes due, by PostgreSQL's clock, and what for."""

    def __init__(self, world: World, seed: int, first_s: float, last_s: float) -> None:
        self.world, self.last_s, self.kind = world, last_s, dict[str, str]()
        self.silent: list[str] = []
        self.breaches: list[tuple[float, str]] = []
        draw = random.Random(seed)
        for number in range(1, world.count + 1):
            task, at = f"g1-t{number}", draw.uniform(first_s, last_s)
            self.kind[task] = kind = ("expired", "silent", "tokens")[number % 3]
            if kind == "expired":
                world.do("UPDATE leases SET expires_at = clock_timestamp() + make_interval(secs => %s) WHERE task_run = %s", at, task)
            else:
                self.breaches.append((at, task))
        self.breaches.sort()
        talkers = [task for task, kind in self.kind.items() if kind != "silent"]  # they are never silent, however slow this test is
        world.do("UPDATE leases SET heartbeat_at = now() + interval '1 h' WHERE task_run = ANY(%s)", talkers)

    async def go(self, begun: float) -> None:
        """Be the workers and the broker: heartbeats go on until they stop, and tokens are used."""
        self.world.do("CREATE TABLE IF NOT EXISTS due (task_run text PRIMARY KEY, at timestamptz)")
        beaten = 0.0
        while self.breaches or time.monotonic() - begun < self.last_s + TIMEOUT_S:
            now = time.monotonic() - begun
            while self.breaches and self.breaches[0][0] <= now:
                task = self.breaches.pop(0)[1]
                if self.kind[task] == "tokens":
                    self.world.do("UPDATE leases SET tokens_used = max_tokens + 1 WHERE task_run = %s", task)
                    self.world.do("INSERT INTO due VALUES (%s, clock_timestamp())", task)
                else:
                    self.silent.append(task)
            if now - beaten > 1:
                beaten = now
                heard = [task for task, kind in self.kind.items() if kind == "silent" and task not in self.silent]
                await asyncio.to_thread(
                    self.world.do,
                    "UPDATE leases SET heartbeat_at = clock_timestamp() WHERE task_run = ANY(%s) AND revoked_at IS NULL",
                    heard,
                )
            await asyncio.sleep(0.05)

    def lateness(self) -> dict[str, list[float]]:
        """Seconds between due and revoked, a kind; a lease that is not revoked counts as missed."""
        rows = self.world.do(
            "SELECT task_run, extract(epoch FROM revoked_at - CASE broken WHEN 'expired' THEN expires_at"
            " WHEN 'silent' THEN heartbeat_at + make_interval(secs => %s) ELSE (SELECT at FROM due d WHERE d.task_run = l.task_run) END)::float AS late,"
            " broken FROM leases l",
            TIMEOUT_S,
        )
        found: dict[str, list[float]] = {"expired": [], "silent": [], "tokens": [], "missed": []}
        for row in rows:
            revoked = row["late"] is not None
            found[row["broken"] if revoked else "missed"].append(row["late"] if revoked else float("inf"))
            assert not revoked or row["broken"] == self.kind[row["task_run"]], row
        return found


async def enforce(world: World, due: Due, broken: bool) -> dict[str, list[float]]:
    """Run the triggers of all leases in this loop, as a triggerer does, while they come due. ``broken``: the watch is stopped."""
    tasks = [asyncio.create_task(run(world.trigger(f"t{number}"))) for number in range(1, world.count + 1)]
    await asyncio.sleep(0)
    if broken:
        running = watch.here()._running
        assert running is not None
        running.cancel()
    begun = time.monotonic()
    await due.go(begun)
    if broken:
        await asyncio.sleep(1)
    else:
        await until("all are revoked", lambda: world.one("SELECT count(*) = 0 FROM leases WHERE revoked_at IS NULL"))
    found = due.lateness()
    if not broken:
        world.do("UPDATE leases SET ended_at = clock_timestamp() WHERE revoked_at IS NOT NULL")  # as the warden would
        world.do("INSERT INTO evidence (lease) SELECT id FROM leases ON CONFLICT DO NOTHING")
        ended = await asyncio.wait_for(asyncio.gather(*tasks), patience(30))
        assert {event["outcome"] for event in ended} == {"gave_up"}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return found


def figures(late: list[float]) -> str:
    late = sorted(late)
    return f"p50 {statistics.median(late):.2f} p95 {late[int(len(late) * 0.95)]:.2f} p99 {late[int(len(late) * 0.99)]:.2f} max {late[-1]:.2f} s"


@pytest.mark.sized
def test_five_hundred_leases_in_one_triggerer(settings: Settings, capsys: pytest.CaptureFixture[str], figure: Figure) -> None:
    with with_settings(heartbeat_timeout_s=TIMEOUT_S, attempts=1) as mine:
        world = World(mine, MANY)
        due = Due(world, 1, limit(4), LAST_S)
        begun, cpu = time.monotonic(), time.process_time()
        found = asyncio.run(enforce(world, due, False))
        took, spent = time.monotonic() - begun, time.process_time() - cpu
        notices, audits = world.one("SELECT count(*) FROM notices"), world.one("SELECT count(*) FROM audit_log WHERE position IS NOT NULL")
    everyone = [late for kind in ("expired", "silent", "tokens") for late in found[kind]]
    with capsys.disabled():
        print(
            f"\n  {MANY} leases, one triggerer, {took:.0f} s and {spent:.1f} CPU-s: revoked late by {figures(everyone)}; missed {len(found['missed'])}"
        )
        for kind in ("expired", "silent", "tokens"):
            print(f"    {kind:8} {len(found[kind])}: {figures(found[kind])}")
    assert found["missed"] == [] and len(everyone) == MANY
    assert notices == audits == MANY
    figure(f"the latest of {MANY} leases is revoked after it is due, s", max(everyone), ALLOWED_S)


@pytest.mark.slow
def test_control_without_the_watch_leases_are_missed(settings: Settings) -> None:
    with with_settings(heartbeat_timeout_s=TIMEOUT_S, attempts=1) as mine:
        world = World(mine, 30)
        found: Any = asyncio.run(enforce(world, Due(world, 2, 0.5, 3), True))
    assert len(found["missed"]) == 30
