"""Frames through a real socket, relay and Valkey; floods, oversizes and strangers; and a relay that is killed."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import pytest
import redis

from include.sandbox.sockets import connect_seqpacket, short
from tests.conftest import wait_until
from tests.kit.scale import limit, patience
from tests.sandbox.conftest import Node

SIGNATURE = b"ab" * 32


class Worker:
    """The worker's side of the frames, in eight lines."""

    def __init__(self, folder: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience(15))
        with short(folder / "relay.sock") as name:
            self.socket.connect(name)

    def ask(self, operation: int, payload: bytes) -> tuple[int, bytes]:
        self.socket.sendall(struct.pack(">IB", 1 + len(payload), operation) + payload)
        length = int.from_bytes(self.exactly(4), "big")
        reply = self.exactly(length)
        return reply[0], reply[1:]

    def exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data


@pytest.fixture
def attempt(node: Node) -> tuple[Node, str, Path, redis.Redis]:
    """A live attempt whose socket the test uses in the worker's place."""
    node.program("import time; time.sleep(1000)")
    _, name = node.lease()
    node.run(name)
    return (
        node,
        name.removeprefix("airlock-").removesuffix("-1"),
        node.root / name / "task",
        redis.Redis.from_url(node.settings.valkey_url("broker")),
    )


def get(worker: Worker, after: tuple[int, int] = (0, 0), wait: int = 1000) -> list[tuple[tuple[int, int], bytes, bytes]]:
    status, data = worker.ask(2, struct.pack(">QQH", *after, wait))
    assert status == 0
    entries = []
    while data:
        first, second, size = struct.unpack(">QQI", data[:20])
        entries.append(((first, second), data[20:84], data[84 : 84 + size]))
        data = data[84 + size :]
    return entries


def test_frames_there_and_back(attempt) -> None:  # type: ignore[no-untyped-def]
    _, task, folder, streams = attempt
    worker = Worker(folder)
    body = bytes(range(256)) * 1024
    assert worker.ask(1, SIGNATURE + body) == (0, b"")
    assert streams.xrange(f"task:{task}:out")[0][1] == {b"e": body, b"s": SIGNATURE}
    assert get(worker, wait=0) == [] and get(worker, wait=200) == []
    streams.xadd(f"task:{task}:in", {"e": b"one", "s": SIGNATURE})
    streams.xadd(f"task:{task}:in", {"e": b"two", "s": SIGNATURE})
    entries = get(worker)
    assert [body for _, _, body in entries] == [b"one", b"two"] and entries[0][1] == SIGNATURE
    assert [body for _, _, body in get(worker, entries[0][0])] == [b"two"]
    assert get(worker, entries[1][0], wait=100) == []


@pytest.mark.parametrize(
    "frame",
    [
        struct.pack(">IB", 1 + 64 + 256 * 1024 + 1, 1),  # one byte too many, refused before it is sent
        struct.pack(">IB", 0xFFFFFFFF, 1),
        struct.pack(">IB", 0, 1),
        struct.pack(">IB", 1, 3),  # no such operation
        struct.pack(">IB", 1 + 64, 1) + b"Z" * 64,  # not a signature
        struct.pack(">IB", 1 + 10, 2) + b"x" * 10,
        struct.pack(">IB", 1 + 19, 2) + b"x" * 19,
    ],
)
def test_what_is_not_a_frame_is_refused_and_closed(attempt, frame: bytes) -> None:  # type: ignore[no-untyped-def]
    _, task, folder, streams = attempt
    worker = Worker(folder)
    worker.socket.sendall(frame)
    reply = worker.exactly(5)
    assert reply == struct.pack(">IB", 1, 1) and worker.socket.recv(1) == b""
    assert streams.xlen(f"task:{task}:out") == 0
    assert Worker(folder).ask(1, SIGNATURE + b"x")[0] == 0  # control: the next good one passes


def test_a_flood_of_connections_and_bytes_waits(attempt) -> None:  # type: ignore[no-untyped-def]
    node, _, folder, _ = attempt
    _, other = node.lease()
    node.run(other)
    quiet = Worker(node.root / other / "task")
    alone = [_took(lambda: quiet.ask(1, SIGNATURE + b"x")) for _ in range(20)]
    held = []
    for _ in range(40):
        flooder = socket.socket(socket.AF_UNIX)
        flooder.settimeout(0.05)
        try:
            with short(folder / "relay.sock") as name:
                flooder.connect(name)
            held.append(flooder)
        except OSError:  # the backlog is full
            flooder.close()
    assert len(held) <= 2 + 9  # two are served, the rest waits in listen(8)
    beside = [_took(lambda: quiet.ask(1, SIGNATURE + b"x")) for _ in range(20)]
    print(f"\nput ms p50: alone {sorted(alone)[10]:.1f}, beside a flood {sorted(beside)[10]:.1f}")
    assert sorted(beside)[10] < max(limit(250), 5 * sorted(alone)[10])  # on a busy machine a put is slow without a flood too
    for flooder in held:
        flooder.close()


def test_bytes_are_metered(attempt) -> None:  # type: ignore[no-untyped-def]
    _, _, folder, _ = attempt
    worker, begin = Worker(folder), time.monotonic()
    for _ in range(8):
        assert worker.ask(1, SIGNATURE + bytes(250_000))[0] == 0
    assert time.monotonic() - begin > 1.0  # 2 MB at 1 MiB/s after a burst of 512 kB


def test_a_killed_relay_is_replaced_without_a_refused_connect(attempt) -> None:  # type: ignore[no-untyped-def]
    node, task, folder, streams = attempt
    assert Worker(folder).ask(1, SIGNATURE + b"before")[0] == 0
    node.kill("relay")
    waiting = Worker(folder)  # connects: the warden holds the listening socket
    begin = time.monotonic()
    node.start_relay()
    assert waiting.ask(1, SIGNATURE + b"after")[0] == 0
    print(f"\na new relay serves after {time.monotonic() - begin:.2f} s")
    assert [entry[b"e"] for _, entry in streams.xrange(f"task:{task}:out")] == [b"before", b"after"]


def test_a_killed_warden_binds_again_for_what_lives(attempt) -> None:  # type: ignore[no-untyped-def]
    node, _, folder, _ = attempt
    if node.engine != "docker":
        pytest.skip("process sandboxes die with the warden")
    old = Worker(folder)
    assert old.ask(1, SIGNATURE + b"x")[0] == 0
    node.kill("warden")
    assert old.ask(1, SIGNATURE + b"x")[0] == 0  # the relay goes on without a warden
    node.start_warden()
    assert wait_until("the new socket is served", lambda: Worker(folder).ask(1, SIGNATURE + b"x")[0] == 0)
    assert old.ask(1, SIGNATURE + b"x")[0] == 0


def test_the_relay_holds_nothing_else(node: Node) -> None:
    """It runs without rights as root's child, never saw PostgreSQL's password, and takes orders from nobody else."""
    pid = node.children["relay"].pid
    control = node.settings.run_dir / "relay-control.sock"
    wait_until("the relay listens", control.exists)
    if os.geteuid() == 0:
        wait_until("it has left root", lambda: "Uid:\t19999\t19999\t19999\t19999" in Path(f"/proc/{pid}/status").read_text())
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"--password-file" in command and node.settings.valkey_password.encode() not in command
    assert node.settings.valkey_password.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
    connect_seqpacket(control).close()  # control: this user may


def _took(act) -> float:  # type: ignore[no-untyped-def]
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1000
