"""What the worker's tests share: a toolbox, a folder laid out like a sandbox, a relay that speaks the frames, a broker's side by script."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from include.messages.models import FROM_BROKER, FROM_WORKER
from include.worker.envelope import Keys, genuine, signature
from include.worker.paths import Paths
from tests.kit.scale import patience

ROOT = Path(__file__).resolve().parents[2]
GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@t.invalid", "-c", "init.defaultBranch=airlock-base"]

SAMPLE = {
    "src/sample/__init__.py": "def add(a, b):\n    return a + b\n",
    "tests/test_add.py": "from sample import add\n\n\ndef test_add():\n    assert add(1, 2) == 3\n",
    ".gitignore": "*.log\n",
}


def make_bundle(files: dict[str, str], target: Path, links: dict[str, str] | None = None) -> str:
    """A base bundle with these files; returns its commit."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*GIT, "init", "-q", folder], check=True)
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        for name, to in (links or {}).items():
            Path(folder, name).symlink_to(to)
        subprocess.run([*GIT, "-C", folder, "add", "-A", "-f"], check=True)
        subprocess.run([*GIT, "-C", folder, "commit", "-qm", "base"], check=True)
        subprocess.run([*GIT, "-C", folder, "bundle", "create", "-q", str(target), "airlock-base"], check=True)
        return subprocess.run([*GIT, "-C", folder, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()


def lay_out(root: Path, toolbox: Path, files: dict[str, str] | None = None, links: dict[str, str] | None = None) -> Paths:
    """The folders of a sandbox below ``root``, with a base bundle and keys."""
    paths = Paths(toolbox, root / "run-task", root / "run-secret", root / "workspace", root / "scratch")
    for folder in (paths.task, paths.secret, paths.workspace, paths.scratch):
        folder.mkdir(parents=True)
    make_bundle(SAMPLE if files is None else files, paths.bundle, links)
    return paths


class Relay(threading.Thread):
    """A unix socket that speaks the frames; the streams are two lists in memory. ``fail`` may break connections on purpose."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.outbox: list[tuple[str, bytes]] = []
        self.inbox: list[tuple[str, bytes]] = []
        self.changed = threading.Condition()
        self.drop_after_put: set[int] = set()
        self.puts = 0
        self.status_for_put: Callable[[int], int] = lambda _: 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        path.chmod(0o666)
        self.listener.listen(8)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        stream = connection.makefile("rwb")
        try:
            while head := stream.read(5):
                length, operation = struct.unpack(">IB", head)
                payload = stream.read(length - 1)
                status, reply = self._put(payload) if operation == 1 else self._get(payload)
                if status < 0:
                    return
                stream.write(struct.pack(">IB", len(reply) + 1, status) + reply)
                stream.flush()
        except (OSError, struct.error):
            return
        finally:
            connection.close()

    def _put(self, payload: bytes) -> tuple[int, bytes]:
        with self.changed:
            self.puts += 1
            status = self.status_for_put(self.puts)
            if status == 0:
                self.outbox.append((payload[:64].decode(), payload[64:]))
                self.changed.notify_all()
            return (-1 if self.puts in self.drop_after_put else status), b""

    def _get(self, payload: bytes) -> tuple[int, bytes]:
        high, _low, wait = struct.unpack(">QQH", payload)
        with self.changed:
            self.changed.wait_for(lambda: len(self.inbox) > high, wait / 1000)
            entries = self.inbox[high:]
        return 0, b"".join(struct.pack(">QQI", high + n, 0, len(body)) + tag.encode() + body for n, (tag, body) in enumerate(entries, 1))


class Broker(threading.Thread):
    """The broker's side by script: checks every message against signature and model, answers by ``answer``.

    ``turns`` is a list of model turns (content blocks), or callables that take the request's payload and give one.
    """

    def __init__(
        self, relay: Relay, keys: Keys, turns: list[Any], capabilities: tuple[str, ...] = ("test", "git-commit"), **assign: Any
    ) -> None:
        super().__init__(daemon=True)
        self.relay, self.keys, self.turns = relay, keys, turns
        self.capabilities, self.assign = capabilities, assign
        self.received: list[dict[str, Any]] = []
        self.keys_seen: dict[str, bytes] = {}
        self.duplicates = 0
        self.errors: list[str] = []
        self.seq, self.sending = 0, threading.Lock()
        self.hold: set[str] = set()
        self.requests = 0

    def send(
        self, type_: str, payload: dict[str, Any], reply_to: str | None = None, *, key: bytes | None = None, epoch: int | None = None
    ) -> None:
        with self.sending:  # a timer of a test may say something too
            self._send(type_, payload, reply_to, key, epoch)

    def _send(self, type_: str, payload: dict[str, Any], reply_to: str | None, key: bytes | None, epoch: int | None) -> None:
        self.seq += 1
        envelope = {
            "v": 1, "id": str(uuid.uuid4()), "taskId": self.keys.task_run, "epoch": epoch or self.keys.epoch, "type": type_, "replyTo": reply_to,
            "ts": datetime.now(UTC).isoformat(), "idempotencyKey": f"b-{self.seq}", "seq": self.seq, "payload": payload,
        }  # fmt: skip
        FROM_BROKER.validate_python(envelope)
        body = json.dumps(envelope).encode()
        self.deliver(signature(key or self.keys.in_key, self.keys.task_run, "in", body), body)

    def deliver(self, tag: str, body: bytes) -> None:
        with self.relay.changed:
            self.relay.inbox.append((tag, body))
            self.relay.changed.notify_all()

    def assign_task(self) -> None:
        lease = {
            "leaseId": str(uuid.uuid4()),
            "expiresAt": (datetime.now(UTC) + timedelta(minutes=5)).isoformat(),
            "maxTokens": 10,
            "maxDurationMinutes": 5,
        }
        given = {
            "title": "t",
            "capabilities": list(self.capabilities),
            "lease": lease,
            "heartbeatS": 1,
            "testTimeoutS": 60,
            "firstTurn": 1,
        } | self.assign
        self.send("task.assign", given)

    def run(self) -> None:
        at = 0
        while True:
            with self.relay.changed:
                self.relay.changed.wait_for(lambda: len(self.relay.outbox) > at, 60)  # noqa: B023
                if len(self.relay.outbox) <= at:
                    return
                tag, body = self.relay.outbox[at]
            at += 1
            try:
                self._take(tag, body)
            except Exception as error:
                self.errors.append(f"{type(error).__name__}: {error}")

    def _take(self, tag: str, body: bytes) -> None:
        if not genuine(self.keys.out_key, self.keys.task_run, "out", body, tag.encode()):
            self.errors.append(f"bad signature on {body[:200]!r}")
            return
        message = FROM_WORKER.validate_json(body)
        if (known := self.keys_seen.get(message.idempotency_key)) is not None:
            self.duplicates += 1
            if known != body:
                self.errors.append(f"{message.idempotency_key} was sent with another body")
            return
        self.keys_seen[message.idempotency_key] = body
        plain = json.loads(body)
        self.received.append(plain)
        self.handle(plain)

    def handle(self, message: dict[str, Any]) -> None:
        if message["type"] in self.hold:
            return
        match message["type"]:
            case "llm.request":
                self.requests += 1
                turn = (
                    self.turns.pop(0) if self.turns else {"stopReason": "end_turn", "content": [{"type": "text", "text": "script is over"}]}
                )
                turn = turn(message["payload"]) if callable(turn) else turn
                if turn is not None:
                    self.send("llm.response", turn, message["id"])
            case "question":
                self.send("answer", {"answer": "blue", "decidedBy": "script"}, message["id"])
            case "artifact" | "task.complete" | "task.failed":
                self.send("receipt", {}, message["id"])

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [message for message in self.received if message["type"] == type_]


def calls(*tools: tuple[str, dict[str, Any]], stop: str = "tool_use") -> dict[str, Any]:
    """A model turn that calls these tools."""
    blocks = [{"type": "tool_use", "id": f"toolu_{secrets.token_hex(4)}", "name": name, "input": given} for name, given in tools]
    return {"stopReason": stop, "content": blocks}


def says(text: str, stop: str = "end_turn") -> dict[str, Any]:
    """A model turn of text only."""
    return {"stopReason": stop, "content": [{"type": "text", "text": text}]}


_RUN = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from include.worker import {program}
from include.worker.paths import Paths
paths = Paths(*map(Path, json.loads(sys.argv[2])))
{before}
{timing}
sys.exit({program}.main(paths{extra}))
"""


def start_program(program: str, paths: Paths, timing: dict[str, float] | None = None, before: str = "") -> subprocess.Popen[bytes]:
    """Run ``work`` or ``verify`` of the zipapp in a process of its own, with other places than the fixed ones."""
    lines = f"from include.worker.conversation import Timing\ntiming = Timing(**{timing!r})" if timing else ""
    code = _RUN.format(program=program, before=before, timing=lines, extra=", timing" if timing else "")
    places = json.dumps([str(path) for path in paths])
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code, str(paths.program), places],
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


class Attempt:
    """One whole worker run against a relay and a scripted broker."""

    def __init__(self, paths: Paths, turns: list[Any], timing: dict[str, float] | None = None, **broker: Any) -> None:
        self.paths = paths
        self.keys = Keys("g1f0c2a9b77de-parser", 2, secrets.token_bytes(32), secrets.token_bytes(32))
        held = {"taskRun": self.keys.task_run, "epoch": self.keys.epoch, "inKey": self.keys.in_key.hex(), "outKey": self.keys.out_key.hex()}
        paths.key.write_text(json.dumps(held))
        self.relay = Relay(paths.socket)
        self.broker = Broker(self.relay, self.keys, turns, **broker)
        self.timing = timing
        self.process: subprocess.Popen[bytes] | None = None
        self.stderr = ""

    def start(self, *, before: str = "") -> Attempt:
        self.relay.start()
        self.broker.start()
        self.broker.assign_task()
        self.process = start_program("work", self.paths, self.timing, before)
        return self

    def wait_for(self, check: Callable[[], Any], seconds: float = 30) -> None:
        """Wait until what the worker has sent makes it true."""
        with self.relay.changed:
            assert self.relay.changed.wait_for(check, patience(seconds)), [message["type"] for message in self.broker.received]

    def wait(self, seconds: float = 60) -> int:
        assert self.process is not None
        try:
            _, stderr = self.process.communicate(timeout=patience(seconds))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            _, stderr = self.process.communicate()
            raise AssertionError(f"the worker did not end; {stderr.decode()} {[m['type'] for m in self.broker.received]}") from None
        self.stderr = stderr.decode()
        time.sleep(0.05)
        assert self.broker.errors == [], self.broker.errors
        return self.process.returncode

    def run(self) -> Attempt:
        self.start()
        code = self.wait()
        assert code == 0, (code, self.stderr)
        return self

    @property
    def ending(self) -> dict[str, Any]:
        return self.broker.received[-1]

    def results(self) -> Iterator[dict[str, Any]]:
        """Every tool result that the broker was given, parsed where it is JSON."""
        for message in self.broker.of("llm.request"):
            yield from message["payload"]["results"]

    def close(self) -> None:
        self.relay.listener.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
