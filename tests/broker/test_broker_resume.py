"""An attempt with turns and a commit is lost; the next one goes on with its transcript: real PostgreSQL, streams, broker and offline model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from include.broker.models import TranscriptLine
from include.broker.rules import NOTHING_KEPT, SANDBOX_LOST, resumption
from include.errors import BadInput
from include.messages import models
from include.offline.model import Place, place_of
from tests.conftest import wait_until

COMMIT = "c0" * 20
WRITE = {"tools": [{"name": "write_file", "input": {"path": "a", "content": "a"}}, {"name": "git_commit", "input": {"message": "m"}}]}
TEST = {"tools": [{"name": "run_tests", "input": {}}, {"name": "read_file", "input": {"path": "a"}}], "text": "I test."}
FINISH = {"tools": [{"name": "finish", "input": {"summary": "done"}}]}
BOOK = {"tasks": {"parser": [[WRITE, TEST, FINISH]]}}


def results(reply: Any) -> list[dict[str, Any]]:
    """As the worker gives them: the commit says which."""
    blocks = [block for block in reply.content if block["type"] == "tool_use"]
    return [
        {"type": "tool_result", "tool_use_id": block["id"], "content": json.dumps({"commit": COMMIT}), "is_error": False}
        for block in blocks
    ]


def lost(yard) -> Any:  # type: ignore[no-untyped-def]
    """A worker with two turns of its model that is lost while it runs the second one's tools."""
    yard.model(BOOK)
    yard.broker()
    worker = yard.attempt()
    assert worker.wait_for("task.assign").payload.first_turn == 1
    first = worker.ask(models.LlmRequest(turn=1, results=[]))
    assert [block["name"] for block in first.content] == ["write_file", "git_commit"]
    worker.ask(models.LlmRequest(turn=2, results=results(first)))
    end(yard)
    return worker


def end(yard) -> None:  # type: ignore[no-untyped-def]
    yard.rows("UPDATE leases SET revoked_at = clock_timestamp(), ended_at = clock_timestamp() WHERE ended_at IS NULL")


def transcript(yard, epoch: int) -> list[tuple[str, Any]]:  # type: ignore[no-untyped-def]
    return [(r["role"], r["content"]) for r in yard.rows("SELECT role, content FROM transcripts WHERE epoch = %s ORDER BY position", epoch)]


def test_a_lost_attempt_is_gone_on_with(yard) -> None:  # type: ignore[no-untyped-def]
    old = lost(yard)
    before = transcript(yard, 1)
    paid = yard.rows("SELECT * FROM model_calls ORDER BY reserved_at")
    new = yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=2, resumed_from=1, commit=COMMIT)
    assert new.wait_for("task.assign").payload.first_turn == 3

    # the same prefix, the lost calls answered, and what the model must know
    after = transcript(yard, 2)
    assert after[:4] == before and len(after) == 5 and after[4][0] == "user"
    *answers, note = after[4][1]
    assert [answer["tool_use_id"] for answer in answers] == [b["id"] for b in before[3][1] if b["type"] == "tool_use"]
    assert all(answer["is_error"] and "sandbox was lost" in answer["content"] for answer in answers)
    assert note["text"].startswith(SANDBOX_LOST) and COMMIT in note["text"] and NOTHING_KEPT not in note["text"]

    # strict: the right turn, and nothing else
    assert "the next one is 3" in new.ask(models.LlmRequest(turn=1, results=[])).error.message
    assert "needs results of []" in new.ask(models.LlmRequest(turn=3, results=[dict(answers[0])])).error.message
    third = new.ask(models.LlmRequest(turn=3, results=[]))
    assert [block["name"] for block in third.content if block["type"] == "tool_use"] == ["run_tests", "read_file"], (
        "said again: it was lost"
    )
    assert "needs results of" in new.ask(models.LlmRequest(turn=4, results=[])).error.message
    fourth = new.ask(models.LlmRequest(turn=4, results=results(third)))
    assert fourth.content[0]["name"] == "finish"
    new.reply_to(new.tell(models.TaskComplete(summary="done", commit=COMMIT)))

    # old turns were not called for again: one call a turn, and the old ones cost what they did
    calls = yard.rows("SELECT * FROM model_calls ORDER BY reserved_at")
    assert calls[:2] == paid and [(call["epoch"], call["state"]) for call in calls] == [(n, "settled") for n in (1, 1, 2, 2)]
    leases = yard.rows("SELECT tokens_used FROM leases ORDER BY epoch")
    assert [lease["tokens_used"] for lease in leases] == [
        sum(c["input_tokens"] + c["output_tokens"] for c in part) for part in (calls[:2], calls[2:])
    ]
    roles = [role for role, _ in transcript(yard, 2)]
    assert roles == ["user", "assistant"] * 4 and yard.one("SELECT first_turn FROM attempts WHERE epoch = 2") == 3


def test_one_that_starts_over_begins_with_the_prompt(yard) -> None:  # type: ignore[no-untyped-def]
    """Negative control of the test above: nothing is copied that was not asked for."""
    old = lost(yard)
    new = yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=2)
    assert new.wait_for("task.assign").payload.first_turn == 1
    assert [role for role, _ in transcript(yard, 2)] == ["user"]
    assert new.ask(models.LlmRequest(turn=1, results=[])).content[0]["name"] == "write_file"


def test_one_that_is_lost_before_its_answer_is_asked_again(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model({"tasks": {"parser": [[WRITE, {**TEST, "delay_s": 60}], [WRITE, TEST, FINISH]]}})
    yard.broker()
    old = yard.attempt()
    old.wait_for("task.assign")
    first = old.ask(models.LlmRequest(turn=1, results=[]))
    given = results(first)
    old.tell(models.LlmRequest(turn=2, results=given))
    wait_until("the second turn is asked for", lambda: len(transcript(yard, 1)) == 3)
    end(yard)
    new = yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=2, resumed_from=1, commit=COMMIT)
    assert new.wait_for("task.assign").payload.first_turn == 2
    after = transcript(yard, 2)
    assert after[:2] == transcript(yard, 1)[:2] and after[2][1][:-1] == given and after[2][1][-1]["text"].startswith(SANDBOX_LOST)
    second = new.ask(models.LlmRequest(turn=2, results=[]))
    assert second.content[0]["text"] == "I test." and second.content[1]["name"] == "run_tests"
    assert new.ask(models.LlmRequest(turn=3, results=results(second))).content[0]["name"] == "finish"


def test_nothing_to_go_on_with_starts_over_and_two_replicas_begin_once(yard) -> None:  # type: ignore[no-untyped-def]
    yard.model(BOOK)
    yard.broker()
    yard.broker()
    old = yard.attempt()
    old.wait_for("task.assign")
    end(yard)
    new = yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=2, resumed_from=1)
    assert new.wait_for("task.assign").payload.first_turn == 1
    assert new.ask(models.LlmRequest(turn=1, results=[])).error is None
    end(yard)
    again = yard.attempt(old.task_run.rsplit("-", 1)[0], epoch=3, resumed_from=2)
    assert again.wait_for("task.assign").payload.first_turn == 2
    assert [role for role, _ in transcript(yard, 3)] == ["user", "assistant", "user"]
    assert NOTHING_KEPT in transcript(yard, 3)[2][1][-1]["text"]
    assert yard.one("SELECT count(*) FROM outbox WHERE type = 'task.assign'") == 3


@pytest.mark.parametrize(("status", "kind"), [(429, "away"), (529, "away"), (503, "away"), (500, "away"), (400, "model"), (401, "model")])
def test_an_endpoint_that_is_away_is_told_apart_from_one_that_refuses(yard, status: int, kind: str) -> None:  # type: ignore[no-untyped-def]
    yard.settings.keys_dir.mkdir(exist_ok=True)
    (yard.settings.keys_dir / "jarvis.key").write_text("sk-ant-none")
    yard.model({"tasks": {"parser": [[{"text": "x", "fault": {"status": status, "retry_after": 0}}]]}})
    yard.broker(AIRLOCK_OFFLINE="false", AIRLOCK_MODEL_ATTEMPTS="2", AIRLOCK_ANTHROPIC_BASE_URL=f"http://127.0.0.1:{yard.model_port}")
    worker = yard.attempt()
    worker.wait_for("task.assign")
    error = worker.ask(models.LlmRequest(turn=1, results=[])).error
    assert error.kind == kind
    worker.reply_to(worker.tell(models.TaskFailed(kind=error.kind, reason=error.message)))
    attempt = yard.rows("SELECT failure, reason FROM attempts")[0]
    assert attempt["failure"] == {"away": "model_away", "model": "model"}[kind] and "127.0.0.1" in attempt["reason"]
    assert yard.one("SELECT spent_micro + reserved_micro FROM goal_runs") == 0


# -- without processes ---------------------------------------------------------------------------------------------------------------


def said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def told(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def use(id_: str, name: str = "read_file") -> dict[str, Any]:
    return {"type": "tool_use", "id": id_, "name": name, "input": {}}


PROMPT = told({"type": "text", "text": "Goal: x"})


@pytest.mark.parametrize(
    ("rows", "first_turn", "blocks"),
    [
        ([PROMPT, said(use("1"), use("2"))], 2, ["tool_result", "tool_result", "text"]),
        ([PROMPT, said({"type": "text", "text": "I am done."})], 2, ["text"]),
        ([PROMPT, said(use("1")), told({"type": "tool_result", "tool_use_id": "1", "content": "x"})], 2, ["tool_result", "text"]),
        ([PROMPT, said(), told({"type": "text", "text": "Go on."}), said(use("1", "finish"))], 3, ["tool_result", "text"]),
    ],
)
def test_a_transcript_that_broke_off_is_completed(rows: list[dict[str, Any]], first_turn: int, blocks: list[str]) -> None:
    resumed = resumption(lines(rows), COMMIT, kept=True)
    assert resumed is not None and resumed.first_turn == first_turn
    assert [block["type"] for block in resumed.content] == blocks
    whole = [*(rows if rows[-1]["role"] == "assistant" else rows[:-1]), told(*resumed.content)]
    assert [row["role"] for row in whole] == ["user", "assistant"] * (len(whole) // 2) + ["user"]
    for message, following in zip(whole[1::2], whole[2::2], strict=True):  # what the Messages API asks for
        asked = [block["id"] for block in message["content"] if block["type"] == "tool_use"]
        assert asked == [block["tool_use_id"] for block in following["content"] if block["type"] == "tool_result"]


def lines(rows: list[dict[str, Any]]) -> list[TranscriptLine]:
    return [TranscriptLine(**row) for row in rows]


def test_no_turn_is_nothing_to_go_on_with() -> None:
    assert resumption([], COMMIT, kept=False) is None and resumption(lines([PROMPT]), COMMIT, kept=False) is None


def committed(id_: str, commit: str, *, is_error: bool = False) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id_, "content": json.dumps({"commit": commit}), "is_error": is_error}


def note(commit: str, *, kept: bool) -> dict[str, Any]:
    resumed = resumption(lines([PROMPT, said()]), commit, kept)
    assert resumed is not None
    return resumed.content[-1]


A, B, C = "a" * 40, "b" * 40, "c" * 40
FIRST = [PROMPT, said(use("1", "git_commit")), told(committed("1", A)), said(use("2"))]


@pytest.mark.parametrize(
    ("messages", "turn"),
    [
        ([PROMPT], 1),
        (FIRST[:3], 2),
        ([*FIRST, told(note(A, kept=True))], 2),  # the second turn was lost, the first is kept
        ([*FIRST, told(note(B, kept=True))], 3),  # the second turn's commit was kept, its result never came
        ([*FIRST, told(note(C, kept=False))], 1),  # nothing was kept
        ([*FIRST, told(note(A, kept=True)), said(use("3"))], 3),
        ([*FIRST, told(note(A, kept=True)), said(use("3")), told(note(A, kept=False))], 2),  # twice
        ([PROMPT, said(use("1", "git_commit")), told(committed("1", A, is_error=True), note(A, kept=False))], 1),
        ([PROMPT, said(use("1")), told(committed("1", A), note(A, kept=False))], 1),  # no commit, though it looks like one
        ([PROMPT, said(use("1", "git_commit")), told(note(B, kept=True))], 2),  # it was the turn's last call
    ],
)
def test_the_offline_model_says_again_what_was_lost(messages: list[dict[str, Any]], turn: int) -> None:
    assert place_of(messages) == Place(turn)


def test_the_offline_model_says_only_what_is_left_of_a_turn_whose_commit_was_kept() -> None:
    lost_turn = [*FIRST[:3], said(use("2"), use("3", "git_commit"), use("4", "finish"))]
    assert place_of([*lost_turn, told(note(B, kept=True))]) == Place(2, 2)
    assert place_of([*lost_turn, told(note(A, kept=True))]) == Place(2, 0)
    assert place_of([*lost_turn, told(note(B, kept=True)), said(use("5", "finish"))]) == Place(3, 0)


def test_results_that_nobody_asked_for_are_still_refused() -> None:
    from include.broker.rules import next_user_content

    with pytest.raises(BadInput):
        next_user_content(3, None, [committed("1", A)])
    assert next_user_content(3, None, []) is None
