"""While the relay or the broker is away no worker is silent, and nothing expires for one heartbeat timeout after; without a pulse it breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
import redis

from include.clock import new_id
from include.database.unit_of_work import transaction
from include.leases import service as leases
from include.settings import Settings
from tests.conftest import free_port, wait_until
from tests.kit.scale import limit
from tests.leases.world import run, with_settings
from tests.sandbox.conftest import COMMIT, Node, own_home
from tests.sandbox.test_ends import inside

TIMEOUT_S = int(limit(6))
AWAY_S = TIMEOUT_S + limit(2)
CONTROLS = pytest.mark.xdist_group("tests/sandbox/test_calm.py, controls")
"""They spoil the pulses of their node: played on another one, beside the others."""
TALKER = """
import socket, struct, time
while True:
    line = socket.socket(socket.AF_UNIX)
    line.connect('/run/task/relay.sock')
    try:
        while True:
            body = b'0' * 64 + b'alive'
            line.sendall(struct.pack('>IB', 1 + len(body), 1) + body)
            line.recv(100)
            time.sleep(0.5)
    except OSError:
        time.sleep(0.2)
"""


@pytest.fixture(scope="module")
def quick(servers: Settings) -> Iterator[Node]:
    """A node with a short heartbeat timeout."""
    with own_home(servers, "bubblewrap", TIMEOUT_S) as mine:
        node = Node(mine, "bubblewrap")
        try:
            mine.bundles_dir.mkdir()
            (mine.bundles_dir / f"{COMMIT}.bundle").write_bytes(b"not really a bundle")
            node.seed()
            node.do("UPDATE goal_runs SET state = 'RUNNING'")
            node.program(TALKER)
            node.start_relay()
            node.start_warden()
            yield node
            node.end_all()
        finally:
            node.stop()


class Broker:
    """Reads what the worker sent by the real relay, as a broker does: a heartbeat for each, and a pulse of its own."""

    def __init__(self, node: Node, task_run: str) -> None:
        self.away = False
        self._node, self._task_run = node, task_run
        self._streams = redis.Redis.from_url(node.settings.valkey_url("broker"))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        seen = 0
        while not self._over.wait(0.3):
            if self.away:
                continue
            self._node.do("SELECT beat('broker/jarvis', make_interval(secs => %s))", TIMEOUT_S / 5)
            now = self._streams.xlen(f"task:{self._task_run}:out")
            if now > seen:
                seen = now
                self._node.do("UPDATE leases SET heartbeat_at = clock_timestamp() WHERE task_run = %s", self._task_run)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def attempt(node: Node) -> tuple[str, str]:
    """A worker at work: its task run and lease."""
    lease, name = node.lease("work", 600)
    task_run = name.removeprefix("airlock-").removesuffix("-1")
    node.do("UPDATE task_runs SET state = 'EXECUTING' WHERE id = %s", task_run)
    node.do("UPDATE attempts SET state = 'WORKING' WHERE task_run = %s", task_run)
    node.do("UPDATE leases SET max_tokens = 10 WHERE id = %s", lease)
    node.run(name)
    return task_run, lease


def watched(node: Node, task_run: str, scene: Callable[[], None]) -> None:
    """Watch the attempt with a real lease trigger while a scene is played."""
    from include.flow.steps.lease import LeaseTrigger  # here, as it takes seconds to load: not every process of a test run needs it

    trigger = LeaseTrigger(task_run.rpartition("-")[2])
    trigger.task_instance = SimpleNamespace(dag_id="goal_sample", run_id="run1", task_id="t.lease", id=str(new_id()))  # type: ignore[assignment]

    async def play() -> None:
        task = asyncio.create_task(run(trigger))
        await asyncio.to_thread(scene)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    with with_settings(api_port=free_port()):
        asyncio.run(play())


Wait = Callable[[], object]


def relay_stopped(node: Node, broker: Broker, wait: Wait) -> None:
    with node.halted("relay"):
        wait()


def relay_killed(node: Node, broker: Broker, wait: Wait) -> None:
    node.kill("relay")
    try:
        wait()
    finally:
        node.start_relay()


def broker_away(node: Node, broker: Broker, wait: Wait) -> None:
    broker.away = True
    wait()
    broker.away = False


OUTAGES: list[Callable[[Node, Broker, Wait], None]] = [relay_stopped, relay_killed, broker_away]


def play(node: Node, outage: Callable[[Node, Broker, Wait], None], breaks: bool) -> dict[str, Any]:
    """An outage longer than the heartbeat timeout, or until the lease breaks; returns the lease after it."""
    task_run, lease = attempt(node)
    broker = Broker(node, task_run)

    def long_enough() -> None:
        if breaks:
            wait_until("it breaks", lambda: node.one("SELECT 1 AS one FROM leases WHERE id = %s AND revoked_at IS NOT NULL", lease))
        else:
            time.sleep(AWAY_S)

    def scene() -> None:
        wait_until(
            "it is heard",
            lambda: node.one("SELECT 1 AS one FROM leases WHERE id = %s AND heartbeat_at > started_at + interval '1 s'", lease),
        )
        wait_until("both pulses beat", lambda: node.one("SELECT 1 AS one WHERE (SELECT count(*) FROM pulses) >= 2 OR EXISTS (SELECT FROM pg_rules"
                                                        " WHERE tablename = 'pulses')"))  # fmt: skip
        outage(node, broker, long_enough)
        heard = (
            "SELECT 1 AS one FROM leases WHERE id = %s AND (revoked_at IS NOT NULL OR clock_timestamp() - heartbeat_at < interval '1 s')"
        )
        wait_until("it is heard again, or it is broken", lambda: node.one(heard, lease))
        time.sleep(1)

    try:
        watched(node, task_run, scene)
        row = node.one(
            "SELECT l.*, a.ended_at AS attempt_ended, t.state, (SELECT count(*) FROM notices n WHERE n.task_run = l.task_run) AS told,"
            f" clock_timestamp() - l.heartbeat_at < interval '{limit(2)} s' AS heard FROM leases l JOIN attempts a USING (task_run, epoch)"
            " JOIN task_runs t ON t.id = l.task_run WHERE l.id = %s",
            lease,
        )
        assert row is not None
        return row
    finally:
        broker.stop()
        node.revoke(lease)


@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
def test_an_outage_breaks_no_attempt(quick: Node, outage: Callable[[Node, Broker, Wait], None]) -> None:
    row = play(quick, outage, breaks=False)
    assert (row["revoked_at"], row["ended_at"], row["attempt_ended"], row["state"], row["told"]) == (None, None, None, "EXECUTING", 0)
    assert row["heard"]  # and it goes on


@CONTROLS
@pytest.mark.parametrize("outage", OUTAGES, ids=lambda outage: outage.__name__)
def test_control_without_the_pulse_it_breaks(quick: Node, outage: Callable[[Node, Broker, Wait], None]) -> None:
    quick.do("DELETE FROM pulses")
    quick.do("CREATE RULE deaf AS ON INSERT TO pulses DO INSTEAD NOTHING")
    try:
        row = play(quick, outage, breaks=True)
    finally:
        quick.do("DROP RULE deaf ON pulses")
    assert row["broken"] == "silent" and row["told"] == 1


def test_a_silent_worker_is_revoked_while_all_is_well(quick: Node) -> None:
    """Control of the other side: the pulses beat, and a worker that is silent breaks its lease."""
    quick.program("import time\ntime.sleep(1000)")
    try:
        task_run, lease = attempt(quick)
        broker = Broker(quick, task_run)
        broken = "SELECT 1 AS one FROM task_runs WHERE id = %s AND state <> 'EXECUTING'"
        try:
            watched(quick, task_run, lambda: wait_until("it breaks", lambda: quick.one(broken, task_run), 2 * TIMEOUT_S + 4))
        finally:
            broker.stop()
        row = quick.one("SELECT l.broken, t.state, a.counted FROM leases l JOIN attempts a USING (task_run, epoch) JOIN task_runs t ON t.id = l.task_run"
                        " WHERE l.id = %s", lease)  # fmt: skip
        assert row == {"broken": "silent", "state": "PENDING_RETRY", "counted": True}
        assert quick.ended(lease)["because"].startswith("revoked: No heartbeat")
    finally:
        quick.program(TALKER)


def test_an_extended_lease_lives_on(quick: Node) -> None:
    """Beyond its first end, and no longer than to its second: the sandbox's own timeout does not stand in the way."""
    quick.do("DELETE FROM pulses WHERE name = 'broker/jarvis'")  # else it counts as away: nothing would expire
    quick.do("UPDATE goal_runs SET deadline_at = clock_timestamp() + interval '1 h'")
    lease, name = quick.lease("work", limit(6))
    first_end = time.monotonic() + limit(6)
    quick.run(name)
    with transaction("cli") as connection:
        end = leases.renew(connection, UUID(lease), limit(6), "ada", "a test")
    time.sleep(max(0.0, first_end + 1 - time.monotonic()))
    assert inside(quick, name)
    evidence = quick.ended(lease)
    assert end is not None and evidence["because"] == "expired" and evidence["created_at"] >= end
