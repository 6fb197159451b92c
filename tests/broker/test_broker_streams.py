"""Fairness, poison, crashes at named points, and a stream server that is killed, restarted or wiped in the middle."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from include.broker import inbox
from include.broker.process import Process
from include.broker.reading import BATCH, Reading
from include.clock import now
from include.local import valkey
from include.messages import models
from include.settings import Settings
from tests.broker.conftest import Worker, Yard
from tests.broker.test_broker_attempt import BOOK, FINISH, results
from tests.broker.test_broker_delivery import connect
from tests.conftest import free_port, wait_until
from tests.kit.scale import patience

FLOOD = 4_000


# -- one worker's flood is that worker's alone ---------------------------------------------------------------------------------------


def _flooder_and_polite(yard: Yard) -> tuple[Worker, Worker]:
    run = yard.goal_run()
    flooder, polite = yard.attempt(run, "a-flood"), yard.attempt(run, "b-polite")
    pipeline = yard.relay.pipeline(transaction=False)
    for number in range(FLOOD):
        _, body, signature = flooder.make(models.Heartbeat(status="working", step=str(number)))
        pipeline.xadd(f"task:{flooder.task_run}:out", {"e": body, "s": signature})
    pipeline.execute()
    polite.tell(models.Progress(status="working", step="please"))
    return flooder, polite


def _taken(yard: Yard, worker: Worker) -> int:
    return int(yard.one("SELECT COALESCE(sum(upper(r) - lower(r)), 0) FROM leases, unnest(taken) AS r WHERE id = %s", worker.lease))


@pytest.mark.parametrize("fair", [True, False], ids=["a share of each stream", "control: as much as there is"])
def test_a_flood_delays_others_by_a_batch_at_most(yard, fair: bool) -> None:  # type: ignore[no-untyped-def]
    flooder, polite = _flooder_and_polite(yard)

    async def until_the_polite_one_is_in() -> None:
        process = Process("jarvis", yard.settings)
        await process.open()
        process.live = {flooder.task_run, polite.task_run}
        reading = Reading(process)
        if fair:
            while not _taken(yard, polite):
                await reading.consume()
        else:
            entries = await process.streams.read(process.live, FLOOD, 100)
            for start in range(0, len(entries), BATCH):
                await reading._take(entries[start : start + BATCH])
                if _taken(yard, polite):
                    break
        await process.close()

    asyncio.run(until_the_polite_one_is_in())
    before = _taken(yard, flooder)
    assert (before <= BATCH) if fair else (before > 5 * BATCH), before


def test_a_stream_of_forgeries_is_a_few_rows_a_second_and_delays_nobody(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    run = yard.goal_run(plan={"summary": "", "tasks": [{"key": k, "title": k, "prompt": k} for k in ("bad", "good")]})
    bad, good = yard.attempt(run, "bad"), yard.attempt(run, "good")
    good.wait_for("task.assign")
    begun, asked = time.monotonic(), 0
    while time.monotonic() < begun + 3 or asked < 60:
        bad.put(b"forged", "0" * 64)
        asked += 1
        if asked % 20 == 0:
            assert good.ask(models.PermissionRequest(capability="test", detail={}, reason="r"), 10).approved_by == "broker"
        time.sleep(0.01)
    wait_until("all are buried", lambda: yard.broker_streams.xlen(f"dead:{bad.task_run}") == asked, 30)
    seconds = time.monotonic() - begun
    rows = yard.rows("SELECT (detail->>'count')::int AS count FROM audit_log WHERE action = 'messages.refused'")
    assert sum(row["count"] for row in rows) == asked and len(rows) <= 2 * seconds + 2


def test_one_poisoned_message_stops_nothing(yard) -> None:  # type: ignore[no-untyped-def]
    # Valid in every way, yet the database cannot take it: it alone is refused, audited and kept aside.
    yard.rows("CREATE FUNCTION choke() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'choked'; END $$")
    yard.rows("CREATE TRIGGER choke BEFORE INSERT ON artifacts FOR EACH ROW WHEN (NEW.data->>'text' = 'poison') EXECUTE FUNCTION choke()")
    worker = yard.attempt()
    told = [worker.tell(models.ArtifactMessage(artifact_type="log", data={"text": "poison" if n == 9 else str(n)})) for n in range(20)]
    yard.broker()
    wait_until("all others have their receipt", lambda: {m.reply_to for m in worker.inbox() if m.reply_to} == set(told) - {told[9]}, 30)
    wait_until("it is buried", lambda: yard.broker_streams.xlen(f"dead:{worker.task_run}") == 1)
    assert "choked" in yard.one("SELECT detail->>'reason' FROM audit_log") and yard.one("SELECT count(*) FROM artifacts") == 19
    wait_until("nothing is pending", lambda: yard.broker_streams.xpending(f"task:{worker.task_run}:out", "broker")["pending"] == 0)


# -- crashes at named points ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["broker.take.before-commit", "broker.take.after-commit", "broker.acknowledge.after"])
def test_a_broker_that_dies_around_its_commit_loses_and_doubles_nothing(yard, tmp_path: Path, point: str) -> None:  # type: ignore[no-untyped-def]
    (faults := tmp_path / "faults").mkdir()
    broker = yard.broker(AIRLOCK_FAULTS=str(faults))
    worker = yard.attempt()
    worker.wait_for("task.assign")
    (faults / point).touch()
    asked = worker.tell(models.ArtifactMessage(artifact_type="log", data={}))
    assert broker.wait(patience(30)) == -signal.SIGKILL and list(faults.iterdir()) == []
    yard.broker()
    worker.reply_to(asked)
    wait_until("nothing is pending", lambda: yard.broker_streams.xpending(f"task:{worker.task_run}:out", "broker")["pending"] == 0, 30)
    assert yard.one("SELECT count(*) FROM artifacts") == 1
    assert {(m.seq, m.type) for m in worker.inbox()} == {(1, "task.assign"), (2, "receipt")}  # the new broker sends both once more


def test_a_crash_between_append_and_mark_sends_the_same_bytes_twice(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    # The worker takes the second for what it is: tests/worker/test_seed_defects.py, test_d8_the_assignment_is_handled_once.
    (faults := tmp_path / "faults").mkdir()
    (faults / "broker.append.after").touch()
    broker = yard.broker(AIRLOCK_FAULTS=str(faults))
    worker = yard.attempt()
    assert broker.wait(patience(30)) == -signal.SIGKILL
    assert yard.one("SELECT count(*) FROM outbox WHERE sent_at IS NULL") == 1 and len(worker.inbox()) == 1
    yard.broker()
    wait_until("it is sent again", lambda: len(worker.inbox()) >= 2)  # a broker that starts sends once more on its own account
    first, *others = (fields for _, fields in yard.broker_streams.xrange(f"task:{worker.task_run}:in"))
    assert all(fields == first for fields in others) and yard.one("SELECT count(*) FROM outbox") == 1
    wait_until("it is marked", lambda: yard.one("SELECT count(*) FROM outbox WHERE sent_at IS NULL") == 0)


# -- the stream server goes away --------------------------------------------------------------------------------------------------------


class StreamServer:
    """A Valkey of one test's own, which it may kill and wipe."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings.model_copy(update={"valkey_port": free_port()}), folder
        valkey.write_acl(folder / "users.acl", settings.valkey_password)
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, *, wiped: bool = False) -> None:
        data = self.folder / "data"
        if wiped:
            data.rename(self.folder / "lost")
        data.mkdir(exist_ok=True)
        line = valkey.command(valkey.find_binary(None), data, self.settings.valkey_port, self.folder / "users.acl")
        self.child = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("the stream server answers", self.answers)

    def answers(self) -> bool:
        try:
            return bool(redis.Redis.from_url(self.settings.valkey_url("broker")).ping())
        except redis.ConnectionError:
            return False

    def kill(self) -> None:
        if self.child:
            self.child.kill()
            self.child.wait()


@pytest.fixture
def server(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StreamServer]:
    """A running one, which the yard of this test uses."""
    (folder := tmp_path / "valkey").mkdir()
    server = StreamServer(settings, folder)
    server.start()
    monkeypatch.setenv("AIRLOCK_VALKEY_PORT", str(server.settings.valkey_port))
    yield server
    server.kill()


@pytest.fixture
def own_yard(server: StreamServer, tmp_path: Path) -> Iterator[Yard]:
    (folder := tmp_path / "yard").mkdir()
    yard = Yard(server.settings, folder)
    yield yard
    yard.close()
    for file in sorted(folder.glob("*.log")):
        print(f"--- {file.name}\n{file.read_text()[-6000:]}")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["restarted without its last second", "wiped", "killed with the broker"])
def test_a_killed_stream_server_loses_nothing(own_yard: Yard, server: StreamServer, how: str) -> None:
    own_yard.model(BOOK)
    broker = own_yard.broker()
    worker = own_yard.attempt()
    worker.wait_for("task.assign")
    first = worker.ask(models.LlmRequest(turn=1, results=[]))
    if how != "wiped":  # as if the last second had not reached the file: the stream is there, but its end is missing
        last = own_yard.broker_streams.xrevrange(f"task:{worker.task_run}:in", count=1)[0][0]
        own_yard.broker_streams.xdel(f"task:{worker.task_run}:in", last)
    if how == "restarted without its last second":
        time.sleep(6)  # control: as long as the same server runs, nobody looks for what it lost
        assert [m.type for m in worker.inbox()] == ["task.assign"]
    if how == "killed with the broker":
        broker.kill()
    server.kill()
    server.start(wiped=how == "wiped")
    if how == "killed with the broker":
        own_yard.broker()
    wait_until("what was sent is there again", lambda: {m.type for m in worker.inbox()} == {"task.assign", "llm.response"}, 60)
    second = worker.ask(models.LlmRequest(turn=2, results=results(first)))
    assert second.content[0]["name"] == FINISH["tools"][0]["name"]
    worker.reply_to(worker.tell(models.TaskComplete(summary="done", commit=None)))
    assert own_yard.one("SELECT state FROM attempts") == "COMPLETING" and own_yard.one("SELECT count(*) FROM model_calls") == 2


@pytest.mark.slow
def test_the_brokers_pulse_stands_for_the_streams_too(own_yard: Yard, server: StreamServer) -> None:
    own_yard.broker()
    worker = own_yard.attempt()
    worker.wait_for("task.assign")
    age = "SELECT extract(epoch FROM clock_timestamp() - beat_at)::float FROM pulses WHERE name = 'broker/jarvis'"
    wait_until("it beats", lambda: own_yard.rows(age) and own_yard.one(age) < 2)
    steady = own_yard.one("SELECT steady_since FROM pulses")
    server.kill()
    wait_until("no beat without streams", lambda: own_yard.one(age) > 7, 15)
    server.start()
    wait_until("it beats again", lambda: own_yard.one(age) < 2)
    assert own_yard.one("SELECT steady_since FROM pulses") > steady, "the outage is known, so that nothing expires for it"


def test_the_database_refuses_a_number_beyond_a_broken_consumer(yard) -> None:  # type: ignore[no-untyped-def]
    # What the consumer holds, the database holds as well: a number is one row, and a key is one row.
    worker = yard.attempt()
    _, body, signature = worker.make(models.Progress(status="working", step="x"))

    async def take() -> None:
        async with await connect(yard) as connection:
            await inbox.take(connection, "jarvis", [inbox.Entry(worker.task_run, "1-1", body, signature)], now())

    asyncio.run(take())
    with pytest.raises(psycopg.errors.UniqueViolation):
        yard.rows("INSERT INTO processed_messages SELECT task_run, epoch, seq, 'other', message_id, type, '' FROM processed_messages")
