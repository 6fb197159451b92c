"""An endpoint that lies: figures that cannot be true, a count of one, an answer byte by byte. No call stays open, no money stays held."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

import pytest

from include.broker import anthropic, calls, money, recovery, rules
from include.broker.models import MOST_TOKENS, Call, OpenCall, Reply
from include.broker.process import Process
from include.clock import new_id
from include.database.unit_of_work import AsyncConnection
from include.errors import ModelFailed
from include.messages import models
from tests.broker.conftest import PLAN, TASK
from tests.broker.test_broker_attempt import yard_request
from tests.broker.test_broker_faults import DONE, _priced_broker, _settings
from tests.conftest import wait_until

TRUE: dict[str, Any] = {"input_tokens": 10, "output_tokens": 5}
LIES: dict[str, dict[str, Any]] = {
    "beyond a bigint": {"input_tokens": 2**63},
    "sums beyond a bigint": {"input_tokens": 2**62, "output_tokens": 2**62},
    "more than any call has": {"output_tokens": MOST_TOKENS + 1},
    "a hundred digits": {"cache_read_input_tokens": 10**99},
    "negative": {"input_tokens": -1},
    "a negative hour": {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": -(2**40)}},
    "an hour beyond a bigint": {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 2**80}},
    "more for an hour than was written": {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": 6}},
    "an hour of nothing": {"cache_creation": {"ephemeral_1h_input_tokens": 6}},
    "half a token": {"input_tokens": 1.5},
    "a float": {"input_tokens": 10.0},
    "a word": {"input_tokens": "10"},
    "a truth": {"output_tokens": True},
    "none": {"output_tokens": None},
    "a list": {"cache_creation": [1]},
}


def said(usage: dict[str, Any]) -> str:
    return json.dumps({"content": [{"type": "text", "text": "done"}], "stop_reason": "end_turn", "usage": TRUE | usage})


@pytest.mark.parametrize("lie", LIES)
def test_figures_that_cannot_be_true_are_a_malformed_answer(lie: str) -> None:
    with pytest.raises(ModelFailed) as refused:
        anthropic._read(said(LIES[lie]).encode())
    assert refused.value.kind == "malformed"


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"cache_creation": None, "cache_read_input_tokens": None, "server_tool_use": {"web_search_requests": 0}},
        {"cache_creation_input_tokens": 6, "cache_creation": {"ephemeral_1h_input_tokens": 6, "ephemeral_5m_input_tokens": 0}},
        {"cache_creation_input_tokens": 6, "cache_creation": {"ephemeral_5m_input_tokens": 6}},
        {"input_tokens": MOST_TOKENS},
    ],
)
def test_control_figures_that_can_be_true_are_taken(usage: dict[str, Any]) -> None:
    assert anthropic._read(said(usage).encode()).text == "done"


def test_a_call_with_figures_that_cannot_be_true_is_given_up_and_the_attempt_ends_with_the_reason(yard) -> None:  # type: ignore[no-untyped-def]
    lies = ["beyond a bigint", "a negative hour", "more than any call has"]
    keys = [f"t{n}" for n in range(len(lies))]
    faults = {key: [[{**DONE, "fault": {"status": 200, "body": said(LIES[lie])}}]] for key, lie in zip(keys, lies, strict=True)}
    yard.model({"tasks": faults, "plans": [{**DONE, "fault": {"status": 200, "body": said(LIES["beyond a bigint"])}}]})
    _priced_broker(yard)
    run = yard.goal_run(plan=PLAN | {"tasks": [TASK | {"key": key} for key in keys]})
    for key in keys:
        worker = yard.attempt(run, key=key)
        worker.wait_for("task.assign")
        error = worker.ask(models.LlmRequest(turn=1, results=[])).error
        assert error.kind == "model" and error.message.startswith("malformed: ")
    request = yard_request(yard, run, 1)
    assert (request["state"], request["error_kind"]) == ("failed", "malformed")
    found = yard.rows("SELECT state, cost_micro = reserved_micro AND cost_micro > 0 AS at_worst FROM model_calls")
    assert found == [{"state": "unknown", "at_worst": True}] * (len(lies) + 1)
    assert yard.one("SELECT sum(reserved_micro)::int FROM leases") == yard.one("SELECT reserved_micro FROM goal_runs") == 0


# -- every way between reserve and settle ----------------------------------------------------------------------------------


class Asker:
    """Who asks; ``keep`` and ``fail`` go wrong as told, by PostgreSQL's own errors or by ours."""

    def __init__(self, *wrong: str) -> None:
        self.wrong = wrong
        self.told: list[str] = []

    async def keep(self, connection: AsyncConnection, reply: Reply) -> None:
        if "keep by us" in self.wrong:
            raise ValueError("not foreseen")
        if "keep by the database" in self.wrong:
            await connection.execute("SELECT 2::bigint ^ 63::bigint")
            await connection.execute("SELECT (2::numeric ^ 63)::bigint")
        self.told.append("kept")

    async def fail(self, connection: AsyncConnection, kind: str, message: str) -> None:
        if "fail" in self.wrong:
            await connection.execute("SELECT 1 / 0")
        self.told.append(kind)


def _call(worker: Any, key: str = "parser", **body: Any) -> Call:
    run = worker.task_run.rsplit("-", 1)[0]
    asked = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Goal: x"}],
             "metadata": {"user_id": f"{run}/{key}/1"}}  # fmt: skip
    return Call(request=str(new_id()), agent="jarvis", goal_run=run, task_run=worker.task_run, epoch=1, lease=worker.lease, purpose="work",
                model="claude-sonnet-5-5", address=f"{run}/{key}/1", body=asked | body, max_tokens=100)  # fmt: skip


async def _perform(yard: Any, call: Call, asker: Asker, cancel_s: float | None = None) -> tuple[int, int]:
    """Make the call in this process, cancelled after so long; what of its own it then ends: while its request is under way, and after."""
    process = Process("jarvis", _settings(yard))
    await process.open()
    try:
        with contextlib.suppress(TimeoutError, ZeroDivisionError, RuntimeError):
            await asyncio.wait_for(calls.perform(process, call, asker), cancel_s)
        kept = await process.transact(lambda c: recovery.recover_own(c, "jarvis", process.owner, {call.request}))
        return kept, await process.transact(lambda c: recovery.recover_own(c, "jarvis", process.owner, set()))
    finally:
        await process.close()


def _money(yard: Any) -> tuple[str, bool, int]:
    (found,) = yard.rows("SELECT state, COALESCE(cost_micro = reserved_micro, false) AS at_worst FROM model_calls")
    return (
        found["state"],
        found["at_worst"],
        yard.one("SELECT reserved_micro FROM leases") + yard.one("SELECT reserved_micro FROM goal_runs"),
    )


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("keep by us",), ["malformed"]),
        (("keep by the database",), ["malformed"]),
        (("keep by us", "fail"), []),
    ],
)
def test_whatever_goes_wrong_behind_the_answer_the_call_ends_at_its_worst_case(yard, wrong: tuple[str, ...], told: list[str]) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[DONE]]}})
    asker = Asker(*wrong)
    assert asyncio.run(_perform(yard, _call(yard.attempt()), asker)) == (0, 0)
    assert (_money(yard), asker.told) == (("unknown", True, 0), told)


def test_control_what_is_not_closed_stays_sent(yard, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    async def nothing(*_: object) -> None:
        return None

    async def none(*_: object) -> int:
        return 0

    yard.model({"tasks": {"parser": [[DONE]]}})
    monkeypatch.setattr(calls, "_close", nothing)
    monkeypatch.setattr(recovery, "_end_all", none)
    asyncio.run(_perform(yard, _call(yard.attempt()), Asker("keep by us")))
    state, _, held = _money(yard)
    assert state == "sent" and held > 0


def test_a_body_that_cannot_be_written_holds_nothing_and_is_told(yard) -> None:  # type: ignore[no-untyped-def]
    asker = Asker()
    asyncio.run(_perform(yard, _call(yard.attempt(), system="\ud800"), asker))
    assert asker.told == ["malformed"] and yard.one("SELECT count(*) FROM model_calls") == 0


def test_a_cancelled_call_is_ended_by_its_own_process(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[{**DONE, "delay_s": 600}]]}})
    assert asyncio.run(_perform(yard, _call(yard.attempt()), Asker(), cancel_s=5)) == (0, 1)
    assert _money(yard) == ("unknown", True, 0)


@pytest.mark.parametrize("guarded", [True, False], ids=["as it is", "control: one word is not caught"])
def test_one_lost_call_that_nobody_can_be_told_of_keeps_no_other_open(yard, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:  # type: ignore[no-untyped-def]
    worker = yard.attempt()
    if not guarded:
        monkeypatch.setattr(recovery, "_give_up", _give_up_unguarded)

    async def go() -> int:
        process = Process("jarvis", _settings(yard))
        await process.open()
        try:
            for request in ("no id of a request", str(new_id())):
                call = _call(worker).model_copy(update={"request": request})
                held = await process.transact(lambda c, call=call: money.reserve(c, call, 10, "jarvis/dead", False))  # type: ignore[misc]
                # Twice: the commit's answer may be lost on the way.
                for _ in range(2):
                    assert await process.transact(lambda c, held=held: money.mark_sent(c, held, "jarvis/dead"))  # type: ignore[misc]
            return await process.transact(lambda c: recovery.recover(c, "jarvis", process.owner))
        finally:
            await process.close()

    if guarded:
        assert asyncio.run(go()) == 2
    else:
        with pytest.raises(ValueError, match="UUID"):
            asyncio.run(go())
    left = yard.one("SELECT count(*) FROM model_calls WHERE state = 'sent'")
    assert (left, yard.one("SELECT reserved_micro FROM leases") > 0) == ((0, False) if guarded else (2, True))


async def _give_up_unguarded(connection: AsyncConnection, call: OpenCall) -> None:
    await money.give_up(connection, call, call.owner, call.http_attempts, "lost")
    await recovery._tell(connection, call)


def test_a_question_of_a_step_that_cannot_be_asked_is_answered_so(yard) -> None:  # type: ignore[no-untyped-def]
    run, id_ = yard.goal_run(), new_id()
    yard.rows(
        "INSERT INTO model_requests (id, agent, goal_run, purpose, address, body) VALUES (%s, 'jarvis', %s, 'plan', %s, %s)",
        id_, run, f"{run}/plan/1", json.dumps({"messages": [], "max_tokens": 2**70}),
    )  # fmt: skip
    yard.broker()
    wait_until("it is answered", lambda: yard.one("SELECT state FROM model_requests") != "requested", 30)
    (request,) = yard.rows("SELECT state, error_kind, error FROM model_requests")
    assert (request["state"], request["error_kind"]) == ("failed", "bad_request") and "max_tokens" in request["error"]


# -- counts and time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counted", [0, 1, 1_000])
def test_a_count_below_what_the_bytes_make_likely_is_not_believed(counted: int) -> None:
    body = {"messages": [{"role": "user", "content": "An honest prompt of many words. " * 10_000}]}
    assert rules.worst_input_tokens(body, counted) >= 320_000 / rules.BYTES_A_TOKEN
    honest = 320_000 // 4
    assert rules.worst_input_tokens(body, honest) == honest + honest // rules.COUNT_MARGIN_SHARE  # control: an honest one stands


def test_control_without_the_floor_a_count_of_one_admits_nearly_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BYTES_A_TOKEN", 10**9)
    assert rules.worst_input_tokens({"messages": ["x" * 320_000]}, 1) == 65


class _Drip:
    """A server that answers a byte at a time: no single read ever waits long."""

    async def __aenter__(self) -> str:
        self.server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n")
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.2)

    async def __aexit__(self, *_: object) -> None:
        self.server.close()


def test_an_answer_byte_by_byte_is_over_with_the_calls_time(yard) -> None:  # type: ignore[no-untyped-def]
    async def ask() -> anthropic.Outcome:
        async with _Drip() as address:
            endpoint = anthropic.Endpoint("jarvis", _settings(yard, anthropic_base_url=address, model_timeout_s=1))
            await endpoint.warm()
            try:
                return await endpoint.create({"model": "m", "max_tokens": 1, "messages": []})
            finally:
                await endpoint.close()

    begun = time.monotonic()
    outcome = asyncio.run(asyncio.wait_for(ask(), 120))
    assert outcome.failure is not None and (outcome.failure.kind, outcome.maybe_billed, outcome.attempts) == ("timeout", True, 1)
    assert time.monotonic() - begun < 60
