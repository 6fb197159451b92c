"""R5 and R6: PostgreSQL and the stream server are killed under load with the settings that the product runs them with, and lose nothing."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import redis

from include import settings as settings_module
from include.local import postgres, valkey
from include.messages import models
from include.messages.signatures import verify
from include.settings import Settings
from tests.broker.conftest import Worker, Yard, yard
from tests.conftest import free_port, wait_until
from tests.kit.scale import count, patience

pytestmark = pytest.mark.slow
__all__ = ["yard"]
KILLS = count(3, 40)
WIPES = count(2, 20)
COMMITS = 50
"""So many commits are confirmed, at least, before each kill."""


class Server:
    """A server of our own that can be killed and started again."""

    def __init__(self, command: list[str], answers: Callable[[], bool]) -> None:
        self.command, self.answers = command, answers
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        wait_until("the server answers", lambda: self.answers() or process.poll() is not None, 60)
        return process

    def kill(self, while_dead: Callable[[], None] = lambda: None) -> float:
        """Kill it and all its children, as the supervisor does; seconds until it answers again."""
        began = time.monotonic()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while_dead()
        self.process = self._start()
        while self.process.poll() is not None:  # children of the dead one were still there
            time.sleep(0.2)
            self.process = self._start()
        return time.monotonic() - began

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


# -- R6: PostgreSQL --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """PostgreSQL as ``./airlock up`` starts it (the tests' own runs with fsync off)."""
    folder, password, port = tmp_path_factory.mktemp("pg"), secrets.token_hex(8), free_port()
    for parent in (folder, *folder.parents):
        if parent.owner() == folder.owner() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    binaries = postgres.find_binaries(None)
    postgres.initialise(binaries, folder / "data", password)
    dsn = f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"

    def answers() -> bool:
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    server = Server(postgres.command(binaries, folder / "data", port), answers)
    yield server, dsn
    server.close()


class Load:
    """Four clients that commit one row at a time, each at once after the one before; they remember what was confirmed."""

    def __init__(self, dsn: str, table: str, synchronous: str) -> None:
        self.dsn, self.table, self.synchronous = dsn, table, synchronous
        self.confirmed: list[set[int]] = [set() for _ in range(4)]
        self.attempted = [0] * 4
        self.ended = threading.Event()
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {table} (client int, number int, PRIMARY KEY (client, number))")
        self.threads = [threading.Thread(target=self._client, args=(client,)) for client in range(4)]
        for thread in self.threads:
            thread.start()

    def _client(self, client: int) -> None:
        while not self.ended.is_set():
            try:
                with psycopg.connect(self.dsn, autocommit=True, connect_timeout=2) as connection:
                    connection.execute(f"SET synchronous_commit = {self.synchronous}")
                    while not self.ended.is_set():
                        number = self.attempted[client]
                        self.attempted[client] += 1
                        connection.execute(f"INSERT INTO {self.table} VALUES (%s, %s)", (client, number))
                        self.confirmed[client].add(number)
            except psycopg.OperationalError:
                time.sleep(0.05)

    def end(self) -> dict[str, int]:
        """The counters."""
        self.ended.set()
        for thread in self.threads:
            thread.join()
        with psycopg.connect(self.dsn) as connection:
            there = set(connection.execute(f"SELECT client, number FROM {self.table}").fetchall())
        confirmed = {(client, number) for client, numbers in enumerate(self.confirmed) for number in numbers}
        return {
            "attempted": sum(self.attempted),
            "acknowledged": len(confirmed),
            "lost": len(confirmed - there),
            "recovered": len(there - confirmed),
        }


def kills_under_load(database: tuple[Server, str], synchronous: str, kills: int) -> tuple[dict[str, int], list[float]]:
    server, dsn = database
    load, chance = Load(dsn, f"t_{synchronous}_{secrets.token_hex(3)}", synchronous), random.Random(11)
    times = []
    for number in range(1, kills + 1):
        wait_until("enough is confirmed", lambda: sum(map(len, load.confirmed)) > number * COMMITS, 60)  # noqa: B023 - called at once
        time.sleep(chance.uniform(0, 0.3))  # anywhere between two writes of the log
        times.append(server.kill())
    return load.end(), times


@pytest.mark.sized
def test_r6_postgresql_killed_under_load_loses_no_commit(database: tuple[Server, str]) -> None:
    counters, times = kills_under_load(database, "on", KILLS)
    print(f"R6: {KILLS} kills, {counters}, recovery p50 {sorted(times)[len(times) // 2]:.2f} s, max {max(times):.2f} s")
    assert counters["acknowledged"] > COMMITS * KILLS
    assert counters["lost"] == 0


@pytest.mark.sized
def test_r6_control_without_synchronous_commit_confirmed_rows_are_gone(database: tuple[Server, str]) -> None:
    counters, _ = kills_under_load(database, "off", KILLS)
    print(f"R6 control: {counters}")
    assert counters["lost"] > 0


def test_our_postgresql_commits_synchronously(servers: Settings) -> None:
    with psycopg.connect(servers.dsn("owner")) as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


# -- R5: the stream server ---------------------------------------------------------------------------------------------------


@pytest.fixture
def streams(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, Path]]:
    """A stream server of this test, as ``./airlock up`` starts it; settings and environment point to it."""
    folder, port = tmp_path / "valkey", free_port()
    folder.mkdir()
    valkey.write_acl(folder / "users.acl", settings.valkey_password)
    monkeypatch.setenv("AIRLOCK_VALKEY_PORT", str(port))

    def answers() -> bool:
        try:
            return bool(redis.Redis.from_url(f"redis://broker:{settings.valkey_password}@127.0.0.1:{port}/0").ping())
        except redis.RedisError:
            return False

    settings_module.settings.cache_clear()
    server = Server(valkey.command(valkey.find_binary(None), folder, port, folder / "users.acl"), answers)
    yield server, folder
    server.close()


class Sender(threading.Thread):
    """A worker that asks for permissions, each put again (the same bytes) until its answer is there, as the real one does.

    It ends when it is told to, and has asked so often. While ``reads`` is cleared it does not look for the answer.
    """

    def __init__(self, worker: Worker, count: int) -> None:
        super().__init__(daemon=True)
        self.worker, self.count, self.asked, self.put, self.seen, self.answers = worker, count, 0, 0, b"0-0", dict[Any, int]()
        self.reads, self.told_to_end = threading.Event(), threading.Event()
        self.reads.set()

    def run(self) -> None:
        while self.asked < self.count or not self.told_to_end.is_set():
            id_, body, signature = self.worker.make(models.PermissionRequest(capability="test", detail={"number": self.asked}, reason="r"))
            self.asked += 1
            while id_ not in self.answers:
                try:
                    self.worker.put(body, signature)
                    self.put += 1
                    end = time.monotonic() + 2
                    while id_ not in self.answers and time.monotonic() < end:
                        self._read()
                except redis.RedisError:
                    time.sleep(0.05)

    def _read(self) -> None:
        if not self.reads.wait(0.05):
            return
        name = f"task:{self.worker.task_run}:in"
        for fields in _fields(self.worker.streams.xread({name: self.seen}, block=50), self):
            assert verify(self.worker.in_key, self.worker.task_run, "in", fields[b"e"], fields[b"s"].decode())
            if (reply_to := json.loads(fields[b"e"]).get("replyTo")) is not None:
                self.answers[UUID(reply_to)] = self.answers.get(UUID(reply_to), 0) + 1


def _fields(reply: Any, sender: Sender) -> Iterator[dict[bytes, bytes]]:
    batches = list(reply.values()) if isinstance(reply, dict) else [batch for _, batch in reply or []]
    for batch in batches:
        for id_, fields in batch if not batch or len(batch[0]) == 2 else batch[0]:
            sender.seen = id_
            yield fields


def aim(yard: Yard) -> None:
    """Workers of this yard speak on the test's own stream server; processes find it by the environment."""
    yard.relay = redis.Redis.from_url(settings_module.load().valkey_url("relay"))


def leave_unread(yard: Yard, senders: list[Sender]) -> None:
    """Wait until an answer that its worker has not read is in each stream: a wipe takes it away, and only the outbox has it then."""
    for sender in senders:
        sender.reads.clear()
    sent = "SELECT count(*) FROM outbox WHERE type = 'permission.grant' AND sent_at IS NOT NULL"

    wait_until(
        "each stream holds an answer that is not read",
        lambda: yard.one(sent) - sum(len(sender.answers) for sender in senders) == len(senders),
        60,
    )


def through_faults(yard: Yard, streams: tuple[Server, Path], faults: list[str], each: int) -> dict[str, int]:
    """Four workers send, each at least so often, while the stream server is killed, and wiped; the six counters of what the database has in the end."""
    server, folder = streams
    goal = yard.goal_run()
    senders = [Sender(yard.attempt(goal, key=f"t{number}"), each) for number in range(4)]
    for sender in senders:
        sender.start()
    chance = random.Random(5)
    for fault in faults:
        time.sleep(chance.uniform(0.2, 0.8))
        if fault == "wipe":
            leave_unread(yard, senders)
        server.kill(lambda: shutil.rmtree(folder / "appendonlydir") if fault == "wipe" else None)  # noqa: B023 - called at once
        for sender in senders:
            sender.reads.set()
    for sender in senders:
        sender.told_to_end.set()
    end = time.monotonic() + patience(60 + each * 0.2)
    for sender in senders:
        sender.join(max(0.1, end - time.monotonic()))
    effects = yard.rows("SELECT inputs->'detail'->>'number' AS number, task_run, count(*) AS count FROM decisions GROUP BY 1, 2")
    attempted = sum(sender.asked for sender in senders)
    return {
        "attempted": attempted,
        "acknowledged": sum(len(sender.answers) for sender in senders),
        "lost": sum(len(sender.answers) for sender in senders) - len(effects),
        "unexpected": max(0, len(effects) - attempted),
        "duplicated": sum(row["count"] > 1 for row in effects),
        "recovered": sum(sender.put for sender in senders) - attempted,
    }


@pytest.mark.sized
def test_r5_the_stream_server_is_killed_and_wiped_and_nothing_is_lost(streams: tuple[Server, Path], yard: Yard) -> None:
    aim(yard)
    yard.broker()
    faults = ["kill", "wipe"] * WIPES + ["kill"] * (KILLS - WIPES)
    counters = through_faults(yard, streams, faults, each=count(10, 25) * len(faults))
    print(f"R5: {len(faults)} kills, {WIPES} of them with a wipe: {counters}")
    assert counters["acknowledged"] == counters["attempted"]
    assert (counters["lost"], counters["unexpected"], counters["duplicated"]) == (0, 0, 0)
    assert counters["recovered"] > 0  # the faults did hit: something had to be sent again


def test_r5_control_without_an_append_only_file_all_entries_are_gone(streams: tuple[Server, Path], settings: Settings) -> None:
    server, _ = streams
    server.command = [word if word != "yes" else "no" for word in server.command]
    server.kill()
    client = redis.Redis.from_url(f"redis://broker:{settings.valkey_password}@127.0.0.1:{os.environ['AIRLOCK_VALKEY_PORT']}/0")
    for number in range(500):
        client.xadd("task:x:out", {"e": str(number)})
    assert client.xlen("task:x:out") == 500
    server.kill()
    assert client.xlen("task:x:out") == 0


def test_r5_control_without_the_outbox_answers_are_lost(streams: tuple[Server, Path], yard: Yard, tmp_path: Path) -> None:
    """A broker that never sends again what the streams have lost: after a wipe, workers wait in vain. It is seen where it would send again."""
    broken = (
        "import asyncio, logging, sys; from include.messages import outbox; from include.broker import __main__ as broker\n"
        "async def all_of_it(*_): print('would send all again', flush=True); return 0\n"
        "async def an_answer(*_): print('would answer again', flush=True); return 0\n"
        "outbox.send_again, outbox.answer_again = all_of_it, an_answer\n"
        "logging.basicConfig(level=logging.INFO); asyncio.run(broker.run('jarvis'))"
    )
    aim(yard)
    child = yard.start("-c", broken)
    wait_until("the broken broker is at work", lambda: "is at work" in yard.log(child), 40)
    worker = yard.attempt()
    server, folder = streams
    id_, body, signature = worker.make(models.PermissionRequest(capability="test", detail={}, reason="r"))
    worker.put(body, signature)
    wait_until(
        "it is taken and answered",
        lambda: worker.inbox() and yard.rows("SELECT 1 AS sent FROM outbox WHERE type = 'permission.grant' AND sent_at IS NOT NULL"),
    )
    server.kill(lambda: shutil.rmtree(folder / "appendonlydir"))
    wait_until("the stream server is empty", lambda: not worker.inbox())

    def passed(words: str, times: int) -> bool:
        """Whether the broker has since come so often to where a sound one sends again; the worker puts its message again, as real ones do."""
        worker.put(body, signature)
        time.sleep(0.5)
        return yard.log(child).count(words) >= times

    already = yard.log(child).count("would send all again")
    wait_until("it would send again, twice", lambda: passed("would send all again", already + 2), 30)  # 5 s lie between
    already = yard.log(child).count("would answer again")
    wait_until("it would answer again", lambda: passed("would answer again", already + 1), 30)
    assert worker.ask(models.PermissionRequest(capability="test", detail={}, reason="r")).approved_by  # what is new is still sent
    assert not any(message.reply_to == id_ for message in worker.inbox())
