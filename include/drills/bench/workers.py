"""Workers that a benchmark plays: a goal run with live attempts in the database, and messages signed as they would sign them."""

from __future__ import annotations

import json
import random
import secrets
from dataclasses import dataclass
from uuid import UUID

from include.agents import service as agents
from include.clock import new_id, now
from include.database import queries
from include.database.unit_of_work import transaction
from include.messages import models
from include.messages.envelopes import EnvelopeHead, make_body
from include.messages.signatures import sign
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)


@dataclass
class Worker:
    """One live attempt (epoch 1), and the last number that it used."""

    task_run: str
    lease: UUID
    in_key: bytes
    out_key: bytes
    seq: int = 0

    def make(self, payload: models.Wire) -> tuple[UUID, bytes, str]:
        """Make the next message: its id, exact bytes and signature."""
        self.seq += 1
        id_ = new_id()
        _, body = make_body(EnvelopeHead(id_, AttemptRef(self.task_run, 1), self.seq, f"k{self.seq}", now()), payload)
        return id_, body, sign(self.out_key, self.task_run, "out", body)


def make_workers(count: int) -> tuple[str, list[Worker]]:
    """Store a goal run of jarvis with as many live attempts (as role ``owner``, on the database that the settings name).

    Returns:
        Its id, and the workers.
    """
    run, goal, keys = f"g{secrets.token_hex(6)}", new_id(), [f"w{number}" for number in range(count)]
    document = json.dumps({"summary": "", "tasks": [{"key": key, "title": key, "prompt": key} for key in keys]})
    workers = []
    with transaction("owner") as connection:
        agents.seed(connection)
        connection.execute(_SQL.insert_places)
        names = {"goal": goal, "run": run, "document": document}
        connection.execute(_SQL.insert_goal, names)
        connection.execute(_SQL.insert_run, names)
        for key in keys:
            worker = Worker(f"{run}-{key}", new_id(), secrets.token_bytes(32), secrets.token_bytes(32))
            row = {"run": run, "key": key, **vars(worker)}
            connection.execute(_SQL.insert_task, row)
            for state in ("POLICY_CHECK", "LEASED"):
                connection.execute(_SQL.move_task, row | {"state": state})
            connection.execute(_SQL.insert_attempt, row)
            connection.execute(_SQL.insert_lease, row)
            connection.execute(_SQL.insert_keys, row)
            workers.append(worker)
    return run, workers


def end_workers(run: str) -> None:
    """End the leases of all workers of a goal run."""
    with transaction("owner") as connection:
        connection.execute(_SQL.end_leases, {"run": run})


def mixed_payload(rng: random.Random, number: int) -> models.Wire:
    """Make a message of the mix that transports were measured with: 70 % heartbeats, 20 % progress, 9 % artifacts, 1 % questions."""
    kind = rng.random()
    if kind < 0.7:
        return models.Heartbeat(status="working", step=f"edits file {number % 7}")
    if kind < 0.9:
        return models.Progress(status="working", step=f"committed {number}")
    if kind < 0.99:
        tests = [{"id": f"tests/test_{item}.py::test_it", "outcome": "passed"} for item in range(10)]
        return models.ArtifactMessage(artifact_type="test_result", data={"passed": 10, "failed": 0, "tests": tests})
    return models.Question(question="Which of the two?", options=["this", "that"], context="Both fit the task.", urgency="normal")
