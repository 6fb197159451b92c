"""What can go wrong with the model: each fault has its kind, its retries, its money, and a sentence to act on."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.broker import inbox, money
from include.broker.anthropic import Endpoint, Outcome
from include.broker.models import Call
from include.clock import now
from include.messages import models
from include.messages.streams import Entry
from include.settings import Settings
from tests.broker.test_broker_attempt import yard_request
from tests.conftest import free_port, wait_until
from tests.kit.scale import count, patience

KEY = "sk-ant-canary-0123456789"
DONE = {"text": "done"}
FAULTS: dict[str, tuple[dict[str, Any], str | None, int, bool]] = {
    # playbook's fault, kind, HTTP attempts (of 3), maybe billed
    "rate_then_fine": ({"status": 429, "retry_after": 0.1, "times": 2}, None, 3, False),
    "rate": ({"status": 429, "retry_after": 0.1}, "rate_limited", 3, False),
    "rate_plain": ({"status": 429, "times": 1}, None, 2, False),
    "rate_told_not_to": ({"status": 429, "should_retry": False}, "rate_limited", 1, False),
    "overloaded": ({"status": 529, "retry_after": 0}, "overloaded", 3, False),
    "away": ({"status": 503, "retry_after": 0}, "overloaded", 3, False),
    "broken": ({"status": 500, "retry_after": 0}, "down", 3, False),
    "bad_key": ({"status": 401}, "unauthorized", 1, False),
    "bad_request": ({"status": 400}, "bad_request", 1, False),
    "no_json": ({"status": 200, "body": "<html>hello"}, "malformed", 1, True),
    "no_message": ({"status": 200, "body": '{"type":"message"}'}, "malformed", 1, True),
    "infinite": ({"status": 200, "body": '{"content":[],"stop_reason":"end_turn","usage":{"input_tokens":1e999,"output_tokens":1}}'}, "malformed", 1, True),
    "hang_up": ({"hang_up": True}, "down", 1, True),
}  # fmt: skip


def _body(key: str) -> dict[str, Any]:
    return {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Goal: x"}], "metadata": {"user_id": f"g1/{key}/1"}}  # fmt: skip


def _settings(yard, **values: Any) -> Settings:  # type: ignore[no-untyped-def]
    """As with a real key, but the endpoint is the offline model."""
    yard.settings.keys_dir.mkdir(exist_ok=True)
    (yard.settings.keys_dir / "jarvis.key").write_text(KEY + "\n")
    base = {"anthropic_base_url": f"http://127.0.0.1:{yard.model_port}", "model_attempts": 3, "model_timeout_s": round(patience(10))}
    return yard.settings.model_copy(update=base | values)  # type: ignore[no-any-return]


def _create(settings: Settings, *bodies: dict[str, Any]) -> list[Outcome]:
    async def create() -> list[Outcome]:
        endpoint = Endpoint("jarvis", settings)
        try:
            return [await endpoint.create(body) for body in bodies]
        finally:
            await endpoint.close()

    return asyncio.run(create())


def test_every_fault_has_its_kind(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {key: [[{**DONE, "fault": fault}]] for key, (fault, *_) in FAULTS.items()}})
    outcomes = _create(_settings(yard), *(_body(key) for key in FAULTS))
    got = {k: (o.failure.kind if o.failure else None, o.attempts, o.maybe_billed) for k, o in zip(FAULTS, outcomes, strict=True)}
    assert got == {key: (kind, attempts, billed) for key, (_, kind, attempts, billed) in FAULTS.items()}
    told = [str(outcome.failure) for outcome in outcomes if outcome.failure]
    assert not any(KEY in text for text in told) and all(len(text) > 40 for text in told)
    assert "ANTHROPIC_API_KEY" in told[list(k for k in FAULTS if FAULTS[k][1]).index("bad_key")]


def test_a_timeout_is_never_tried_again_and_a_slow_answer_within_it_is_fine(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"slow": [[{**DONE, "delay_s": 1}]], "stuck": [[{**DONE, "delay_s": 30}]]}})
    (slow,) = _create(_settings(yard), _body("slow"))
    (stuck,) = _create(_settings(yard, model_timeout_s=2), _body("stuck"))
    assert slow.reply is not None and slow.reply.text == "done"
    assert stuck.failure is not None and (stuck.failure.kind, stuck.attempts, stuck.maybe_billed) == ("timeout", 1, True)


def test_nobody_listens_and_no_key(yard, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (down,) = _create(_settings(yard, anthropic_base_url=f"http://127.0.0.1:{free_port()}", model_attempts=2), _body("x"))
    assert down.failure is not None and (down.failure.kind, down.attempts, down.maybe_billed) == ("down", 2, False)
    (keyless,) = _create(_settings(yard, home=tmp_path), _body("x"))
    assert keyless.failure is not None and keyless.failure.kind == "unauthorized" and "no model key" in str(keyless.failure)


def test_unknown_addresses_counting_and_streams_by_the_sdk(yard) -> None:  # type: ignore[no-untyped-def]
    import anthropic

    yard.model({"tasks": {"a": [[{"text": "hi", "tools": [{"name": "read_file", "input": {"path": "x"}}]}]]}})
    with anthropic.Anthropic(api_key="offline", base_url=f"http://127.0.0.1:{yard.model_port}", max_retries=0) as client:
        body = _body("a")
        with client.messages.stream(**body) as stream:
            streamed = stream.get_final_message()
        plain = client.messages.create(**body)
        lost = client.messages.create(**_body("nobody"))
        count = client.messages.count_tokens(model="m", messages=body["messages"]).input_tokens
    assert [b.type for b in streamed.content] == ["text", "tool_use"] == [b.type for b in plain.content]
    assert streamed.content[1].input == {"path": "x"} and streamed.stop_reason == plain.stop_reason == "tool_use"
    assert "No offline playbook" in lost.content[0].text and lost.stop_reason == "end_turn"
    assert 0 < count == plain.usage.input_tokens == streamed.usage.input_tokens


PRICED = {"AIRLOCK_OFFLINE": "false", "AIRLOCK_MODEL_ATTEMPTS": "2"}


def _priced_broker(yard, *, fresh: bool = False, **more: str):  # type: ignore[no-untyped-def]
    _settings(yard)
    return yard.broker(fresh=fresh, AIRLOCK_ANTHROPIC_BASE_URL=f"http://127.0.0.1:{yard.model_port}", **{**PRICED, **more})


def test_worker_and_step_are_told_and_nothing_is_charged_for_a_refusal(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model(
        {"tasks": {"parser": [[{**DONE, "fault": {"status": 401}}]]}, "plans": [{**DONE, "fault": {"status": 529, "retry_after": 0}}]}
    )
    broker = _priced_broker(yard, fresh=True)  # its environment is looked at
    worker = yard.attempt()
    worker.wait_for("task.assign")
    error = worker.ask(models.LlmRequest(turn=1, results=[])).error
    assert error.kind == "model" and error.message.startswith("unauthorized: ")
    request = yard_request(yard, worker.task_run.rsplit("-", 1)[0], 1)
    assert (request["state"], request["error_kind"]) == ("failed", "overloaded")
    calls = yard.rows("SELECT state, cost_micro, reserved_micro > 0 AS reserved, http_attempts FROM model_calls ORDER BY reserved_at")
    assert calls == [{"state": "released", "cost_micro": 0, "reserved": True, "http_attempts": n} for n in (1, 2)]
    assert yard.rows("SELECT reserved_micro, spent_micro FROM goal_runs") == [{"reserved_micro": 0, "spent_micro": 0}]
    environment = Path(f"/proc/{broker.pid}/environ").read_bytes()
    assert KEY not in yard.log(broker) and KEY.encode() not in environment


def test_a_budget_stops_the_worker_before_the_call(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[DONE]]}})
    _priced_broker(yard)
    worker = yard.attempt(max_micro=1_000)
    worker.wait_for("task.assign")
    error = worker.ask(models.LlmRequest(turn=1, results=[])).error
    assert error.kind == "budget" and "the lease's money" in error.message
    assert yard.one("SELECT count(*) FROM model_calls") == 0


def test_kill_9_in_the_middle_of_a_call(yard) -> None:  # type: ignore[no-untyped-def]
    model = yard.model({"tasks": {"parser": [[{**DONE, "delay_s": 600}]]}})
    broker = _priced_broker(yard)
    worker = yard.attempt()
    worker.wait_for("task.assign")
    asked = worker.tell(models.LlmRequest(turn=1, results=[]))
    wait_until("the call is sent", lambda: yard.rows("SELECT id FROM model_calls WHERE state = 'sent'"), 60)
    broker.send_signal(signal.SIGKILL)
    broker.wait(patience(10))
    assert model.poll() is None  # it was the broker alone that died
    model.kill()
    model.wait(patience(10))
    yard.model({"tasks": {"parser": [[DONE]]}})  # what is asked next is answered at once
    _priced_broker(yard)
    error = worker.reply_to(asked).payload.error
    assert error.kind == "lost"
    (call,) = yard.rows("SELECT * FROM model_calls")
    assert call["state"] == "unknown" and call["cost_micro"] == call["reserved_micro"] > 0
    assert yard.rows("SELECT reserved_micro, spent_micro FROM leases") == [{"reserved_micro": 0, "spent_micro": call["cost_micro"]}]
    again = worker.ask(models.LlmRequest(turn=1, results=[]))
    assert again.content == [{"type": "text", "text": "done"}]
    assert [row["state"] for row in yard.rows("SELECT state FROM model_calls ORDER BY reserved_at")] == ["unknown", "settled"]


def test_a_living_replica_is_not_taken_for_dead(yard) -> None:  # type: ignore[no-untyped-def]
    # Control of the test above: a second broker starts while the first one's call is under way, and leaves it alone.
    yard.model({"tasks": {"parser": [[{**DONE, "delay_s": 5}]]}})
    first = _priced_broker(yard)
    worker, other = yard.attempt(), yard.attempt()
    worker.wait_for("task.assign")
    asked = worker.tell(models.LlmRequest(turn=1, results=[]))
    wait_until("the call is sent", lambda: yard.rows("SELECT id FROM model_calls WHERE state = 'sent'"), 60)
    first.send_signal(signal.SIGSTOP)  # alive, and at nothing until the second one has looked
    asyncio.run(_reserve(yard, _call_of(other, "x"), "jarvis/dead"))
    _priced_broker(yard)
    wait_until("a dead one's call is ended", lambda: yard.rows("SELECT id FROM model_calls WHERE state = 'released'"), 60)
    assert len(yard.rows("SELECT id FROM model_calls WHERE state = 'sent'")) == 1
    first.send_signal(signal.SIGCONT)
    assert worker.reply_to(asked).payload.error is None
    assert sorted(row["state"] for row in yard.rows("SELECT state FROM model_calls")) == ["released", "settled"]


def _call_of(worker: Any, key: str) -> Call:
    return Call(request=f"{worker.task_run}/1/{key}", agent="jarvis", goal_run=worker.task_run.rsplit("-", 1)[0], task_run=worker.task_run,
                epoch=1, lease=worker.lease, purpose="work", model="claude-sonnet-5-5", address="a", body={}, max_tokens=10)  # fmt: skip


async def _reserve(yard, call: Call, owner: str, *before: Entry) -> None:  # type: ignore[no-untyped-def]
    """Take these messages in, and reserve for the call in the name of this owner."""
    async with await psycopg.AsyncConnection.connect(yard.settings.dsn("broker"), row_factory=dict_row) as connection:
        if before:
            await inbox.take(connection, "jarvis", list(before), now())
        assert await money.reserve(connection, call, 10, owner, False)


def test_what_a_dead_broker_reserved_and_did_not_send_is_made_anew(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[DONE]]}})
    worker = yard.attempt()
    yard.rows('INSERT INTO transcripts VALUES (%s, 1, 1, \'user\', \'[{"type": "text", "text": "Goal: x"}]\')', worker.task_run)
    id_, body, signature = worker.make(models.LlmRequest(turn=1, results=[]), key="k")
    asyncio.run(_reserve(yard, _call_of(worker, "k"), "jarvis/dead", Entry(worker.task_run, "1-1", body, signature)))
    _priced_broker(yard)
    assert worker.reply_to(id_).payload.content == [{"type": "text", "text": "done"}]
    assert sorted(row["state"] for row in yard.rows("SELECT state FROM model_calls")) == ["released", "settled"]
    assert yard.one("SELECT reserved_micro FROM leases") == 0


LONG_CALL_S = count(11, 61)
"""Every day: longer than every other time limit of a broker, which are at most 10 s (streams, counting tokens)."""


@pytest.mark.slow
@pytest.mark.sized
def test_a_model_call_of_61_seconds_succeeds(yard) -> None:  # type: ignore[no-untyped-def]
    # Seed defect D6: there, the 60 s timeout of a question also cut model calls.
    yard.model({"tasks": {"parser": [[{**DONE, "delay_s": LONG_CALL_S}]]}})
    yard.broker()
    worker = yard.attempt()
    worker.wait_for("task.assign")
    begun = time.monotonic()
    assert worker.ask(models.LlmRequest(turn=1, results=[]), 90).content == [{"type": "text", "text": "done"}]
    assert time.monotonic() - begun > LONG_CALL_S - 1


@pytest.mark.slow
@pytest.mark.sized
def test_control_a_limit_below_its_length_cuts_the_call(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[{**DONE, "delay_s": LONG_CALL_S}]]}})
    yard.broker(AIRLOCK_MODEL_TIMEOUT_S=str(LONG_CALL_S // 10))
    worker = yard.attempt()
    worker.wait_for("task.assign")
    error = worker.ask(models.LlmRequest(turn=1, results=[]), 90).error
    assert error.kind == "unknown" and error.message.startswith("timeout: ")
