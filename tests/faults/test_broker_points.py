"""R3 for the broker: it dies at each of its points, another one goes on, and everything has happened once."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from include.faults import POINTS
from include.messages import models
from tests.broker.conftest import Worker, Yard, yard
from tests.conftest import wait_until
from tests.kit.scale import patience

__all__ = ["yard"]
pytestmark = pytest.mark.slow
BOOK = {"tasks": {"parser": [[{"text": "done"}]]}}
MINE = sorted(name for name in POINTS if name.startswith("broker."))


class Watched:
    """A broker that is started again whenever it dies, as the supervisor does."""

    def __init__(self, yard: Yard, faults: Path) -> None:
        self.yard, self.environment, self.deaths = yard, {"AIRLOCK_FAULTS": str(faults)}, 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return self.yard.start("-m", "include.broker", "--agent", "jarvis", **self.environment)

    def tend(self) -> None:
        if self.process.poll() is not None:
            self.deaths += 1
            self.process = self._start()


def said(worker: Worker, broker: Watched, payload: models.Wire, seconds: float = 120) -> Any:
    """Put a message, the same bytes again and again as a worker does, until its answer is there."""
    id_, body, signature = worker.make(payload)
    end, due = time.monotonic() + patience(seconds), 0.0
    while time.monotonic() < end:
        broker.tend()
        if time.monotonic() > due:
            worker.put(body, signature)
            due = time.monotonic() + 3
        if answers := [message for message in worker.inbox() if message.reply_to == id_]:
            return answers[0].payload
        time.sleep(0.1)
    pytest.fail(f"no answer to {payload}")


@pytest.mark.parametrize("point", MINE)
def test_dead_at_a_point_and_everything_happens_once(yard: Yard, tmp_path: Path, point: str) -> None:
    faults = tmp_path / "faults"
    faults.mkdir()
    (faults / point).touch()
    yard.model(BOOK)
    broker, worker = Watched(yard, faults), yard.attempt()
    wait_until("it is assigned", lambda: [broker.tend(), any(message.type == "task.assign" for message in worker.inbox())][1], 120)
    asked = 1
    reply = said(worker, broker, models.LlmRequest(turn=1, results=[]))
    while reply.error is not None:
        assert reply.error.kind == "lost" and asked < 4, reply
        reply, asked = said(worker, broker, models.LlmRequest(turn=1, results=[])), asked + 1
    granted = said(worker, broker, models.PermissionRequest(capability="test", detail={}, reason="r"))
    received = said(worker, broker, models.TaskComplete(summary="done", commit="a" * 40))

    assert broker.deaths == 1 and not (faults / point).exists()
    assert reply.content == [{"type": "text", "text": "done"}] and granted.approved_by and received is not None
    assert [row["seq"] for row in yard.rows("SELECT seq FROM processed_messages ORDER BY seq")] == list(range(1, asked + 3))
    assert [row["role"] for row in yard.rows("SELECT role FROM transcripts ORDER BY position")] == ["user", "assistant"]
    assert yard.one("SELECT count(*) FROM decisions") == 1
    states = [row["state"] for row in yard.rows("SELECT state FROM model_calls WHERE state <> 'released'")]  # what never left is made anew
    assert states.count("settled") == 1 and len(states) == asked and set(states) <= {"settled", "unknown"}
    assert yard.one("SELECT state FROM attempts") == "COMPLETING"
    seen = [message.seq for message in worker.inbox()]
    assert sorted(set(seen)) == list(range(1, len(set(seen)) + 1))


def test_control_acknowledged_before_the_commit_an_effect_is_lost(yard: Yard, tmp_path: Path) -> None:
    """The broken order: the stream forgets the message first, then the process dies before its commit."""
    faults = tmp_path / "faults"
    faults.mkdir()
    broken = (
        "import asyncio, logging\n"
        "from include.broker import __main__ as broker, reading\n"
        "take = reading.Reading._take\n"
        "async def first(self, batch):\n"
        "    await self.process.streams.acknowledge(batch)\n"
        "    return await take(self, batch)\n"
        "reading.Reading._take = first\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "asyncio.run(broker.run('jarvis'))"
    )
    told = "SELECT count(*) FROM task_events WHERE kind = 'milestone' AND detail = %s"
    worker = yard.attempt()
    for start, lost in ((("-c", broken), True), (("-m", "include.broker", "--agent", "jarvis"), False)):
        child = yard.start(*start, AIRLOCK_FAULTS=str(faults))
        wait_until("it is at work", lambda: "is at work" in yard.log(child), 60)  # noqa: B023 - called at once
        worker.wait_for("task.assign")
        (faults / "broker.take.before-commit").touch()
        worker.tell(models.Progress(status="working", step=f"step {lost}"))  # never put again: only the stream can bring it again
        wait_until("it is dead", lambda: child.poll() is not None, 60)  # noqa: B023
        worker.tell(models.Progress(status="working", step=f"witness {lost}"))
        assert yard.broker_streams.xreadgroup("broker", "dead", {f"task:{worker.task_run}:out": ">"})
        after = yard.start("-m", "include.broker", "--agent", "jarvis")
        wait_until("another goes on", lambda: "is at work" in yard.log(after), 60)  # noqa: B023
        # What yet another consumer took after it, and died with, is claimed by now: so is all that can be claimed.
        wait_until("the witness is claimed", lambda: yard.one(told, f"witness {lost}"), 60)  # noqa: B023
        assert yard.one(told, f"step {lost}") == (0 if lost else 1)
        after.kill()
        after.wait()
