"""The worker's loop: a model turn, the tools it asks for, the next turn. Every way a turn can end is in one table below.

The transcript is the broker's; a request carries only the results of the tools that the last turn asked for.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from include.worker.conversation import Conversation
from include.worker.errors import Cancelled, NoAnswer
from include.worker.heartbeat import Heart
from include.worker.tools import MAX_RESULT_BYTES, Result, Tools, cap

MAX_TURN_BYTES = 200 * 1024
MAX_CUT_TURNS = 3
ENDING_ERRORS = ("budget", "model", "away")
"""Kinds of errors that end the attempt, under the same name."""

# What a stop reason means, when the turn asks for no tool: the task is complete, the turn goes on, or the model failed.
COMPLETE, GO_ON, FAILED = "complete", "go on", "failed"
RULES = {
    "end_turn": COMPLETE,
    "stop_sequence": COMPLETE,
    "max_tokens": GO_ON,
    "pause_turn": GO_ON,
    "tool_use": GO_ON,
    "refusal": FAILED,
    "model_context_window_exceeded": FAILED,
}


ASKS = {"unknown": 2, "lost": 10}
"""How often a turn is asked for: after silence or an error of an unknown kind, and after the broker died over it."""


class Complete(NamedTuple):
    """The model says that the task is done."""

    summary: str


class NotDone(NamedTuple):
    """The worker gives up. ``kind`` is one of the message's kinds."""

    kind: str
    reason: str


class ModelTurn(NamedTuple):
    """A model's turn, as far as it is of use."""

    stop_reason: str
    text: str
    calls: list[dict[str, Any]]


def work(conversation: Conversation, heartbeat: Heart, tools: Tools, first_turn: int) -> Complete | NotDone:
    """Ask the model for turn after turn, and run the tools it calls, until an end.

    Args:
        conversation: with the broker.
        heartbeat: told what is done.
        tools: what the model may call.
        first_turn: 1, or where an older attempt's conversation goes on; asked for with no results, because nothing was run here.

    Raises:
        Cancelled: the attempt was cancelled.
    """
    number, idle = first_turn, 0
    results: list[dict[str, Any]] = []
    while True:
        heartbeat.now("working", f"waits for turn {number} of the model")
        turn = _ask(conversation, number, results)
        if isinstance(turn, NotDone):
            return turn
        idle = 0 if turn.calls and turn.stop_reason != "max_tokens" else idle + 1
        if ending := _ending(turn, idle):
            return ending
        results = _run(conversation, tools, turn)
        if tools.summary is not None:
            return Complete(tools.summary)
        number += 1


def _ask(conversation: Conversation, number: int, results: list[dict[str, Any]]) -> ModelTurn | NotDone:
    """The model's turn. What stands in ASKS is met by one more question, as a message of its own; then the model is away."""
    failed, asks = NotDone("away", ""), Counter[str]()
    while all(asks[kind] < most for kind, most in ASKS.items()):
        try:
            reply = conversation.ask("llm.request", {"turn": number, "results": results}, conversation.timing.model)
        except NoAnswer as error:
            failed = NotDone("away", str(error))
            asks.update(["unknown"])
            continue
        error_kind, message = _error(reply.payload)
        if error_kind is None:
            return read_turn(reply.payload)
        if error_kind in ENDING_ERRORS:
            return NotDone(error_kind, message)
        failed = NotDone("away", message)
        asks.update(["lost" if error_kind == "lost" else "unknown"])
    return failed


def read_turn(payload: dict[str, Any]) -> ModelTurn:
    """Read what counts of a response: its stop reason, its text and the calls of tools."""
    content = payload.get("content")
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    text = "\n".join(str(block.get("text", "")) for block in blocks if block.get("type") == "text")
    return ModelTurn(str(payload.get("stopReason")), text, [block for block in blocks if block.get("type") == "tool_use"])


def _error(payload: dict[str, Any]) -> tuple[str | None, str]:
    error = payload.get("error")
    if error is None:
        return None, ""
    if not isinstance(error, dict):
        return "unknown", "the broker sent an error without a form"
    return str(error.get("kind", "unknown")), str(error.get("message", ""))


def _ending(turn: ModelTurn, idle: int) -> Complete | NotDone | None:
    rule = RULES.get(turn.stop_reason, FAILED)
    if rule == FAILED:
        return NotDone("model", f"the model's turn ended with {turn.stop_reason}: {turn.text or 'it said nothing'}")
    if turn.calls and turn.stop_reason != "max_tokens":
        return None
    if rule == COMPLETE:
        return Complete(turn.text.strip() or "The model ended without a summary.")
    if idle >= MAX_CUT_TURNS:
        return NotDone("gave_up", f"{idle} turns in a row ended with {turn.stop_reason} and called no tool that could be run")
    return None


def _run(conversation: Conversation, tools: Tools, turn: ModelTurn) -> list[dict[str, Any]]:
    """One result for each call, in order, together within what a message holds."""
    limit = min(MAX_RESULT_BYTES, MAX_TURN_BYTES // max(1, len(turn.calls)))
    results = []
    for call in turn.calls:
        if conversation.cancelled.is_set():
            raise Cancelled(conversation.cancel_reason)
        result = _run_one(tools, turn, call)
        results.append(
            {"type": "tool_result", "tool_use_id": str(call.get("id", "")), "content": cap(result.text, limit), "is_error": result.is_error}
        )
    return results


def _run_one(tools: Tools, turn: ModelTurn, call: dict[str, Any]) -> Result:
    if turn.stop_reason == "max_tokens":
        return Result(
            "Not run: the turn was cut at its token limit, so these arguments may not be whole. Make smaller calls.", is_error=True
        )
    if tools.summary is not None:
        return Result("Not run: finish was called before.", is_error=True)
    return tools.run(call.get("name"), call.get("input"))
