"""A whole attempt on real PostgreSQL and Valkey, a real broker process, and the offline model over HTTP by the real SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.clock import new_id
from include.database.unit_of_work import transaction
from include.messages import models
from tests.conftest import wait_until
from tests.kit.scale import patience

READ = {"tools": [{"name": "read_file", "input": {"path": "README.md"}}], "text": "I read first."}
FINISH = {"tools": [{"name": "finish", "input": {"summary": "done"}}]}
BOOK = {"tasks": {"parser": [[READ, FINISH]]}, "answers": ["Take the second."]}


def results(reply: Any) -> list[dict[str, Any]]:
    return [{"type": "tool_result", "tool_use_id": b["id"], "content": "text\x00"} for b in reply.content if b["type"] == "tool_use"]


def test_an_attempt_from_assignment_to_receipt(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model(BOOK)
    yard.broker(fresh=True)  # as an installation starts it: the SDK is imported beside the first message
    worker = yard.attempt()
    assignment = worker.wait_for("task.assign").payload
    assert (assignment.title, assignment.capabilities, assignment.lease.max_tokens) == ("Parse", ["test", "git-commit"], 200_000)
    worker.tell(models.Progress(status="ready", step="ready"))
    first = worker.ask(models.LlmRequest(turn=1, results=[]))
    assert first.error is None and first.stop_reason == "tool_use" and first.content[0]["text"] == "I read first."
    answer = worker.ask(models.Question(question="Which?", options=["a", "b"], context="", urgency="blocking"))
    assert (answer.answer, answer.decided_by) == ("Take the second.", "claude-opus-5-5")
    assert worker.ask(models.PermissionRequest(capability="pkg-install", detail={}, reason="r")).decided_by == "broker"
    assert worker.ask(models.PermissionRequest(capability="test", detail={}, reason="r")).approved_by == "broker"
    worker.tell(models.Heartbeat(status="working", step="edits"))
    second = worker.ask(models.LlmRequest(turn=2, results=results(first)))
    assert second.content[0]["name"] == "finish"
    worker.reply_to(worker.tell(models.ArtifactMessage(artifact_type="log", data={"text": "x"})))
    worker.reply_to(worker.tell(models.TaskComplete(summary="done", commit="a" * 40)))

    decided = yard.rows("SELECT detail ->> 'capability' AS capability, detail ->> 'decision' AS decision FROM audit_log ORDER BY position")
    assert [tuple(entry.values()) for entry in decided] == [("pkg-install", "forbid"), ("test", "permit")]
    attempt = yard.rows("SELECT * FROM attempts")[0]
    assert (attempt["state"], attempt["commit_id"], attempt["step"]) == ("COMPLETING", "a" * 40, "edits") and attempt["finished_at"]
    calls = yard.rows("SELECT * FROM model_calls ORDER BY reserved_at")
    assert [(c["state"], c["offline"], c["cost_micro"], c["purpose"]) for c in calls] == [
        ("settled", True, 0, "work"), ("settled", True, 0, "answer"), ("settled", True, 0, "work")]  # fmt: skip
    lease = yard.rows("SELECT * FROM leases")[0]
    assert lease["tokens_used"] == sum(c["input_tokens"] + c["output_tokens"] for c in calls) > 100 and lease["reserved_micro"] == 0
    assert yard.one("SELECT state FROM task_runs") == "EXECUTING"
    assert [e["to_state"] for e in yard.rows("SELECT to_state FROM task_events WHERE machine = 'attempt' AND kind = 'transition' ORDER BY id")] == [
        "SPAWNING", "READY", "WORKING", "BLOCKED", "WORKING", "COMPLETING"]  # fmt: skip
    assert [r["role"] for r in yard.rows("SELECT role FROM transcripts ORDER BY position")] == ["user", "assistant", "user", "assistant"]
    prompt = yard.one("SELECT content->0->>'text' FROM transcripts WHERE position = 1")
    assert "Goal: Add a parser" in prompt and "Write the parser." in prompt and "src/**" in prompt
    assert sorted(r["decision"] for r in yard.rows("SELECT decision FROM decisions")) == ["forbid", "permit"]
    assert [m.seq for m in worker.inbox()] == list(range(1, len(worker.inbox()) + 1))


@pytest.mark.parametrize("seconds", [77, 901])  # two, so that no fixed number passes
def test_a_worker_is_given_the_settings_time_for_its_tests(yard, seconds: int) -> None:  # type: ignore[no-untyped-def]
    yard.broker(AIRLOCK_TEST_TIMEOUT_S=str(seconds))
    assert yard.attempt().wait_for("task.assign").payload.test_timeout_s == seconds


def test_results_that_the_last_turn_did_not_ask_for_are_refused(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model(BOOK)
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    assert "next one is 1" in worker.ask(models.LlmRequest(turn=2, results=[])).error.message
    first = worker.ask(models.LlmRequest(turn=1, results=[]))
    assert worker.ask(models.LlmRequest(turn=2, results=[])).error.kind == "model"
    strange = [{"type": "tool_result", "tool_use_id": "toolu_other", "content": "x"}]
    assert "needs results of" in worker.ask(models.LlmRequest(turn=2, results=strange)).error.message
    assert worker.ask(models.LlmRequest(turn=2, results=results(first))).error is None
    assert yard.one("SELECT count(*) FROM model_calls") == 2


def test_an_ending_waits_for_what_comes_before(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    worker.tell(models.Progress(status="working", step="a"))
    late = worker.make(models.Heartbeat(status="working", step="b"))
    ending = worker.tell(models.TaskComplete(summary="", commit=None))
    wait_until("the first is taken", lambda: yard.one("SELECT count(*) FROM processed_messages") == 1)
    assert not yard.one("SELECT finished_at IS NOT NULL FROM attempts") and not any(m.reply_to == ending for m in worker.inbox())
    worker.put(*late[1:])
    worker.reply_to(ending)
    assert yard.one("SELECT state FROM attempts") == "COMPLETING"


def test_a_revoked_lease_is_cancelled_once_and_its_worker_may_say_farewell(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    worker.tell(models.Progress(status="working", step="a"))
    yard.rows("UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = 'a person cancelled'")
    assert worker.wait_for("task.cancel").payload.reason == "a person cancelled"
    worker.reply_to(worker.tell(models.TaskFailed(kind="cancelled", reason="told to stop")))
    assert [m.type for m in worker.inbox()] == ["task.assign", "task.cancel", "receipt"]
    assert yard.rows("SELECT state, failure, reason FROM attempts") == [{"state": "FAILED", "failure": None, "reason": "told to stop"}]
    yard.rows("UPDATE leases SET ended_at = clock_timestamp()")
    wait_until("the streams are gone", lambda: not list(yard.broker_streams.scan_iter("task:*")))


def test_an_older_epoch_is_refused_and_buried(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    old = yard.attempt()
    old.wait_for("task.assign")
    yard.rows("UPDATE leases SET revoked_at = clock_timestamp(), ended_at = clock_timestamp()")
    new = yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=2)
    assert new.wait_for("task.assign").epoch == 2
    assert yard.broker_streams.xlen(f"task:{new.task_run}:in") == 1
    old.tell(models.TaskComplete(summary="late", commit="b" * 40))
    dead = f"dead:{old.task_run}"
    wait_until("it is buried", lambda: yard.broker_streams.xlen(dead) == 1)
    assert "signature" in yard.broker_streams.xrange(dead)[0][1][b"reason"].decode()
    assert yard.rows("SELECT finished_at FROM attempts WHERE finished_at IS NOT NULL") == []
    assert "refused 1 message" in yard.one("SELECT detail FROM task_events WHERE kind = 'milestone'")


def test_a_number_is_taken_once_and_a_foreign_key_takes_nothing(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    run = yard.goal_run(plan={"summary": "", "tasks": [{"key": k, "title": k, "prompt": k} for k in ("a", "b")]})
    one, other = yard.attempt(run, "a"), yard.attempt(run, "b")
    one.wait_for("task.assign")
    one.put(*one.make(models.Progress(status="working", step="first"), seq=1, key="k1")[1:])
    one.put(*one.make(models.Progress(status="working", step="second"), seq=1, key="k2")[1:])
    one.put(*one.make(models.Progress(status="working", step="third"), seq=2, key="k1")[1:])
    one.put(*one.make(models.Heartbeat(status="working", step="beat"), seq=3, key="k3")[1:])
    one.put(*one.make(models.Progress(status="working", step="in a heartbeat's place"), seq=3, key="k4")[1:])
    one.put(*one.make(models.Heartbeat(status="working", step="in a progress's place"), seq=1, key="k1")[1:])
    other.put(*other.make(models.Progress(status="working", step="fine"), seq=1, key="k1")[1:])  # no worker can take another's key
    wait_until("four are buried", lambda: yard.broker_streams.xlen(f"dead:{one.task_run}") == 4)
    wait_until("two are taken", lambda: yard.one("SELECT count(*) FROM processed_messages") == 2)
    assert [r["step"] for r in yard.rows("SELECT step FROM attempts ORDER BY task_run")] == ["beat", "fine"]
    assert [str(r["taken"]) for r in yard.rows("SELECT taken::text FROM leases ORDER BY task_run")] == ["{[1,2),[3,4)}", "{[1,2)}"]


def test_wiped_streams_lose_nothing(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model(BOOK)
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    request = worker.make(models.LlmRequest(turn=1, results=[]))
    worker.put(*request[1:])
    worker.reply_to(request[0])
    yard.broker_streams.delete(*yard.broker_streams.scan_iter("*"))
    assert [m.type for m in worker.inbox()] == []
    wait_until("what was sent is there again", lambda: [m.type for m in worker.inbox()] == ["task.assign", "llm.response"])
    worker.put(*request[1:])  # and the worker's own re-send makes no second call
    worker.reply_to(worker.tell(models.TaskComplete(summary="", commit=None)))
    assert yard.one("SELECT count(*) FROM model_calls") == 1


def test_a_step_of_airflow_gets_its_plan(yard) -> None:  # type: ignore[no-untyped-def]
    plan = {"summary": "s", "tasks": [{"key": "a", "title": "A", "prompt": "p"}]}
    yard.model({"plans": [{"text": "no plan"}, {"plan": plan}]})
    yard.broker()
    run = yard.goal_run()
    answers = [yard_request(yard, run, number) for number in (1, 2)]
    assert answers[0]["response"] == {"text": "no plan", "stop_reason": "end_turn"}
    assert json.loads(answers[1]["response"]["text"]) == plan
    call = yard.rows("SELECT model, address, state FROM model_calls ORDER BY reserved_at")[1]
    assert call == {"model": "claude-opus-5-5", "address": f"{run}/plan/2", "state": "settled"}


def yard_request(yard, run: str, number: int, seconds: float = 30) -> dict[str, Any]:  # type: ignore[no-untyped-def]
    """Leave a planning request as an Airflow step does, and wait for its end."""
    from psycopg.types.json import Jsonb

    id_ = new_id()
    body = {"model": None, "system": "Plan.", "messages": [{"role": "user", "content": "Goal: Add a parser"}],
            "schema": {"type": "object", "properties": {}, "additionalProperties": False}, "max_tokens": 4000}  # fmt: skip
    with transaction("airflow") as connection:
        connection.execute(
            "INSERT INTO model_requests (id, agent, goal_run, purpose, address, body) VALUES (%s, 'jarvis', %s, 'plan', %s, %s)",
            [id_, run, f"{run}/plan/{number}", Jsonb(body)],
        )
    return wait_until("the request ends", lambda: next(iter(yard.rows("SELECT * FROM model_requests WHERE id = %s AND state <> 'requested'", id_)), None), seconds)  # fmt: skip


def test_what_a_dead_consumer_took_is_claimed(yard) -> None:  # type: ignore[no-untyped-def]
    # Seed defect D13. A consumer read the message, perhaps even committed, and died before it acknowledged.
    worker = yard.attempt()
    stream = f"task:{worker.task_run}:out"
    yard.broker_streams.xgroup_create(stream, "broker", id="0", mkstream=True)
    worker.tell(models.Progress(status="working", step="taken by a dead one"))
    assert yard.broker_streams.xreadgroup("broker", "dead", {stream: ">"})
    yard.broker()
    wait_until("it is claimed", lambda: yard.one("SELECT step FROM attempts") == "taken by a dead one", 30)
    wait_until("it is acknowledged", lambda: yard.broker_streams.xpending(stream, "broker")["pending"] == 0)


def test_two_replicas_share_the_work_and_end_on_sigterm(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[READ] * 6]}})
    brokers = [yard.broker(), yard.broker()]
    worker = yard.attempt()
    worker.wait_for("task.assign")
    replies: list[Any] = []
    for turn in range(1, 7):
        replies.append(worker.ask(models.LlmRequest(turn=turn, results=results(replies[-1]) if replies else [])))
    worker.reply_to(worker.tell(models.TaskComplete(summary="", commit=None)))
    assert all(reply.error is None for reply in replies)
    assert yard.one("SELECT count(*) FROM model_calls WHERE state = 'settled'") == 6 == yard.one("SELECT count(*) FROM model_calls")
    # In order, though two send; a broker that has just begun sends once more what may be lost, and workers know the numbers.
    assert list(dict.fromkeys(m.seq for m in worker.inbox())) == list(range(1, 9))
    for broker in brokers:
        broker.terminate()
    assert [broker.wait(patience(20)) for broker in brokers] == [0, 0]
    assert yard.one("SELECT count(*) FROM pg_stat_activity WHERE usename = 'airlock_broker' AND datname = current_database()") == 0
