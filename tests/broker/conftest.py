"""A yard for the broker's tests: a goal with live leases, workers that speak on the real streams, an offline model, broker processes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis
import yaml

from include.clock import new_id, now
from include.database.unit_of_work import transaction
from include.goals import service as goals
from include.goals.models import MICRO
from include.messages import models
from include.messages.envelopes import EnvelopeHead, Sender, make_body, open_envelope
from include.messages.signatures import sign, verify
from include.settings import Settings
from include.tasks.models import AttemptRef
from tests.conftest import ROOT, free_port, wait_until
from tests.kit import build
from tests.kit.forked import Forked
from tests.kit.scale import patience

Child = subprocess.Popen[bytes] | Forked

TASK = {"key": "parser", "title": "Parse", "prompt": "Write the parser.", "touches": ["src/**"]}
PLAN = {"summary": "s", "tasks": [TASK]}


class Worker:
    """A scripted worker: speaks for one attempt on the real streams, as the relay would for it."""

    def __init__(self, yard: Yard, task_run: str, epoch: int, in_key: bytes, out_key: bytes, lease: UUID) -> None:
        self.task_run, self.epoch, self.in_key, self.out_key, self.lease = task_run, epoch, in_key, out_key, lease
        self.attempt = AttemptRef(task_run, epoch)
        self.seq = 0
        self.streams = yard.relay
        self.since = now() - timedelta(minutes=1)

    def make(self, payload: models.Wire, seq: int | None = None, key: str | None = None) -> tuple[UUID, bytes, str]:
        """A signed message: its id, bytes and signature."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        id_ = new_id()
        _, body = make_body(EnvelopeHead(id_, self.attempt, seq, key or str(id_), now()), payload)
        return id_, body, sign(self.out_key, self.task_run, "out", body)

    def put(self, body: bytes, signature: str) -> None:
        self.streams.xadd(f"task:{self.task_run}:out", {"e": body, "s": signature})

    def tell(self, payload: models.Wire) -> UUID:
        id_, body, signature = self.make(payload)
        self.put(body, signature)
        return id_

    def inbox(self) -> list[Any]:
        """All messages of this attempt so far, each checked as a worker does."""
        entries = self.streams.xread({f"task:{self.task_run}:in": "0-0"})
        rows = (entries.items() if isinstance(entries, dict) else entries) if entries else []
        found = []
        for _, batch in rows:
            for _, fields in batch if not batch or len(batch[0]) == 2 else batch[0]:
                signature = fields[b"s"].decode()
                if not verify(self.in_key, self.task_run, "in", fields[b"e"], signature):
                    continue  # an older attempt's, until the broker has deleted it: a worker passes over it
                found.append(open_envelope("in", fields[b"e"], signature, Sender(self.attempt, self.in_key, self.since), now()))
        return found

    def reply_to(self, id_: UUID, seconds: float = 60) -> Any:
        return wait_until(f"an answer to {id_}", lambda: next((m for m in self.inbox() if m.reply_to == id_), None), seconds)

    def ask(self, payload: models.Wire, seconds: float = 60) -> Any:
        return self.reply_to(self.tell(payload), seconds).payload

    def wait_for(self, type_: str, seconds: float = 60) -> Any:
        return wait_until(f"a {type_}", lambda: next((m for m in self.inbox() if m.type == type_), None), seconds)


class Yard:
    """Rows in the database, and processes beside it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.relay = redis.Redis.from_url(settings.valkey_url("relay"))
        self.broker_streams = redis.Redis.from_url(settings.valkey_url("broker"))
        self.children: list[Child] = []
        self.model_port = free_port()
        with transaction("owner") as connection:
            build.ground(connection)
            build.node(connection)

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with transaction("owner") as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def one(self, statement: str, *values: Any) -> Any:
        return next(iter(self.rows(statement, *values)[0].values()))

    def goal_run(
        self, budget_micro: int = 5_000_000, plan: dict[str, Any] = PLAN, agent: str = "jarvis", text: str = "Add a parser"
    ) -> str:
        with transaction("owner") as connection:
            run = goals.new_run_id()
            goal = build.goal(connection, run, agent=agent, goal=text, budget_usd=budget_micro / MICRO)  # its DAG bears its run's name
            build.plan(connection, goal.id, plan)
            return build.run(connection, goal, run).id

    def attempt(
        self,
        goal_run: str | None = None,
        key: str = "parser",
        epoch: int = 1,
        max_tokens: int = 200_000,
        max_micro: int = 1_000_000,
        resumed_from: int | None = None,
        commit: str = "c",
    ) -> Worker:
        goal_run = goal_run or self.goal_run()
        terms = build.TERMS._replace(max_tokens=max_tokens, max_micro=max_micro)
        with transaction("owner") as connection:
            task = build.task(connection, goal_run, key)
            made = build.attempt(connection, task, terms, commit, resumed_from=resumed_from)
        assert made.attempt.epoch == epoch
        return Worker(self, task.id, epoch, made.in_key, made.out_key, made.lease)

    # -- processes -------------------------------------------------------------------------------------------------------

    def start(self, *command: str, fresh: bool = False, **environment: str) -> Child:
        """Start ``python *command`` with this environment: forked from a parent that has its imports, or ``fresh``, as an installation does."""
        log = self.folder / f"{len(self.children)}.log"
        env = {**os.environ, "AIRLOCK_OFFLINE": "true", "AIRLOCK_OFFLINE_PORT": str(self.model_port), **environment}
        if fresh:
            with log.open("wb") as file:
                child: Child = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=env, stdout=file, stderr=file)
        else:
            log.touch()
            child = Forked(command, env, log)
        self.children.append(child)
        return child

    def model(self, playbook: dict[str, Any]) -> Child:
        """An offline model that plays this playbook, up and listening."""
        file = self.folder / f"{secrets.token_hex(4)}.yaml"
        file.write_text(yaml.safe_dump({"goal_matches": ".", **playbook}))
        child = self.start("-m", "include.offline.model", "--port", str(self.model_port), "--playbooks", str(file))
        wait_until("the offline model listens", lambda: _listens(self.model_port) or child.poll() is not None, 30)
        assert child.poll() is None, self.log(child)
        return child

    def broker(self, agent: str = "jarvis", *, fresh: bool = False, **environment: str) -> Child:
        """A broker process, at work."""
        child = self.start("-m", "include.broker", "--agent", agent, fresh=fresh, **environment)
        wait_until("the broker is at work", lambda: "is at work" in self.log(child) or child.poll() is not None, 40)
        assert child.poll() is None, self.log(child)
        return child

    def log(self, child: Child) -> str:
        return (self.folder / f"{self.children.index(child)}.log").read_text()

    def close(self) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.wait(patience(10))


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def yard(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Yard]:
    """A yard of one test; its processes die with it, and their logs are shown when it failed."""
    yard = Yard(settings, tmp_path)
    yield yard
    yard.close()
    for file in sorted(tmp_path.glob("*.log")):
        print(f"--- {file.name}\n{file.read_text()[-6000:]}")
