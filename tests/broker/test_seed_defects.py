"""Defects that the seeds' broker side had (D9, D21, D24), each with real messages that would fail with it."""

from __future__ import annotations

import json
from typing import Any

from include.messages import models
from include.messages.signatures import sign
from tests.conftest import wait_until

READ = {"tools": [{"name": "read_file", "input": {"path": "README.md"}}], "text": "I read first."}
FINISH = {"tools": [{"name": "finish", "input": {"summary": "done"}}]}
BOOK = {"tasks": {"parser": [[READ, READ, FINISH]]}, "answers": ["Take the second."]}


def test_d9_what_a_worker_says_of_its_usage_changes_nothing(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    counted = "SELECT tokens_used, spent_micro, reserved_micro, (SELECT count(*) FROM model_calls) AS calls FROM leases"
    before = yard.rows(counted)
    for lie in ({"tokens_used": -100_000}, {"usage": {"input_tokens": 0}}, {"cost_usd": 0.0}):
        body = json.loads(worker.make(models.Heartbeat(status="working", step="cheap"))[1])
        body["payload"] |= lie
        lying = json.dumps(body).encode()
        worker.put(lying, sign(worker.out_key, worker.task_run, "out", lying))
    worker.tell(models.Heartbeat(status="working", step="honest"))  # control: without the lie it is taken
    wait_until("it is taken", lambda: yard.one("SELECT step FROM attempts") == "honest")
    wait_until("the lies are buried", lambda: yard.broker_streams.xlen(f"dead:{worker.task_run}") == 3)
    assert yard.rows(counted) == before


def test_d21_every_control_message_is_a_valid_envelope(yard) -> None:  # type: ignore[no-untyped-def]
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    yard.rows("UPDATE leases SET revoked_at = clock_timestamp(), revoke_reason = 'budget'")
    assert worker.wait_for("task.cancel").payload.reason == "budget"
    raw = [fields for _, fields in yard.broker_streams.xrange(f"task:{worker.task_run}:in")]
    assert len(raw) == 2 and all(set(fields) == {b"e", b"s"} for fields in raw)
    assert [message.type for message in worker.inbox()] == ["task.assign", "task.cancel"], (
        "each passes the worker's own check: signature, then form"
    )
    assert [(message.seq, message.epoch, message.task_id) for message in worker.inbox()] == [(n, 1, worker.task_run) for n in (1, 2)]
    # Negative control: the same bytes under another signature, as an unsigned cancel would be, are passed over.
    yard.relay.xadd(f"task:{worker.task_run}:out", {"e": raw[1][b"e"], "s": b"0" * 64})
    wait_until("it is buried", lambda: yard.broker_streams.xlen(f"dead:{worker.task_run}") == 1)


def test_d24_usage_is_the_sum_of_all_calls_counted_at_the_broker(yard) -> None:  # type: ignore[no-untyped-def]
    yard.settings.keys_dir.mkdir(exist_ok=True)
    (yard.settings.keys_dir / "jarvis.key").write_text("sk-ant-none")
    yard.model(BOOK)
    yard.broker(AIRLOCK_OFFLINE="false", AIRLOCK_ANTHROPIC_BASE_URL=f"http://127.0.0.1:{yard.model_port}")
    worker = yard.attempt()
    worker.wait_for("task.assign")
    given: list[dict[str, Any]] = []
    for turn in (1, 2, 3):
        reply = worker.ask(models.LlmRequest(turn=turn, results=given))
        given = [{"type": "tool_result", "tool_use_id": b["id"], "content": "text"} for b in reply.content if b["type"] == "tool_use"]
    worker.ask(models.Question(question="Which?", options=[], context="", urgency="blocking"))
    calls = yard.rows("SELECT cost_micro, input_tokens + output_tokens AS tokens FROM model_calls WHERE state = 'settled'")
    assert len(calls) == 4 and all(call["cost_micro"] > 0 for call in calls)
    cost, tokens = sum(call["cost_micro"] for call in calls), sum(call["tokens"] for call in calls)
    assert yard.rows("SELECT spent_micro, reserved_micro, tokens_used FROM leases") == [
        {"spent_micro": cost, "reserved_micro": 0, "tokens_used": tokens}
    ]
    assert yard.one("SELECT spent_micro FROM task_runs") == yard.one("SELECT spent_micro FROM goal_runs") == cost
    assert max(call["cost_micro"] for call in calls) < cost, "the last call's usage is not the whole"
    assert not any(name in models.OUT_PAYLOADS[type_].model_fields for type_ in models.OUT_PAYLOADS for name in ("usage", "tokens", "cost"))
