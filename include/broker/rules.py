"""Pure rules of the broker: worst case and cost of a call, what fits, which tool results fit the last turn."""

from __future__ import annotations

import json
import math
from typing import Any, NamedTuple

from include.broker.models import Prices, Tier, TranscriptLine, Usage
from include.errors import BadInput, BudgetExceeded

SANDBOX_LOST = "Your sandbox was lost."
NOTHING_KEPT = "because nothing was committed in the lost one"
_RESUMED = (
    SANDBOX_LOST + " You go on in a new one, whose workspace stands at commit {commit}, {why}. What was not committed is gone: "
    "look before you rely on a file that you wrote, and do again what is missing."
)
_NO_RESULT = "The sandbox was lost before the result of this came back. What it did is there only if it was committed."
COUNT_MARGIN_TOKENS = 64
COUNT_MARGIN_SHARE = 50
"""A counted prompt may be off by 64 tokens or one in fifty: the API calls its own count an estimate."""

BYTES_A_TOKEN = 5
"""Most UTF-8 bytes that a token of real text has: an endpoint that counts fewer tokens than this makes is not believed.

Measured with the last tokenizer that Anthropic published (in the package anthropic 0.38), on 280 files: medians of 3.5 (our tests) to 4.1
(CPython's library) bytes a token, our prompts and tool definitions 3.9 to 4.1, licences at most 5.1, lists of attacks from 2.2; the JSON
of a request around a file adds little: 5.0 or less for 19 of 20 files. So an honest count stands as it is, within
its margin, and a false one hides a quarter of usual text, more of dense text, and not nearly all of it. The tokenizers of newer models
are not published: where one makes fewer tokens, a call holds back more than it needs, never less.
"""


def worst_micro(prices: Prices, input_tokens: int, max_tokens: int) -> int:
    """Compute the most that a call can cost (micro-USD): every input token at the dearest price that may apply, every output token used."""
    dearest = max(max(tier.input, tier.cache_write, tier.cache_write_1h) for tier in prices.tiers)
    return math.ceil(input_tokens * dearest + max_tokens * max(tier.output for tier in prices.tiers))


def cost_micro(prices: Prices, usage: Usage) -> int:
    """Compute what a call did cost, in micro-USD, rounded up."""
    tier = _tier(prices, usage.prompt)
    cost = usage.input_tokens * tier.input + usage.output_tokens * tier.output + usage.cache_read * tier.cache_read
    cost += (usage.cache_write - usage.cache_write_1h) * tier.cache_write + usage.cache_write_1h * tier.cache_write_1h
    return math.ceil(cost)


def _tier(prices: Prices, prompt_tokens: int) -> Tier:
    return [tier for tier in prices.tiers if tier.above == 0 or prompt_tokens > tier.above][-1]


def worst_input_tokens(body: dict[str, Any], counted: int | None) -> int:
    """Compute the most input tokens that a body can be: the endpoint's count with a margin, never below what its bytes make likely.

    Where the endpoint does not count it is one token a UTF-8 byte.
    """
    size = len(json.dumps(body, ensure_ascii=False).encode())
    if counted is None:
        return size
    return max(counted + max(COUNT_MARGIN_TOKENS, counted // COUNT_MARGIN_SHARE), math.ceil(size / BYTES_A_TOKEN))


WARN_SHARE = 80
"""Of a budget, in percent: so much spent is told as a warning."""


def warning(what: str, spent: int, most: int) -> str | None:
    """Word what people are told when a budget is nearly spent; None: there is nothing to tell.

    Args:
        what: the budget, in words.
        spent: settled so far, in micro-USD.
        most: the budget, in micro-USD.
    """
    if not spent or spent * 100 < most * WARN_SHARE:
        return None
    return f"${spent / 1e6:.4f} of ${most / 1e6:.4f} is spent of {what}. When all of it is, no further model call is made."


def excess_words(model: str, address: str, cost: int, worst: int) -> str:
    """Word what people are told of a call that cost more (micro-USD) than its worst case."""
    return (
        f"The call {address} of {model} cost ${cost / 1e6:.4f}, more than its worst case of ${worst / 1e6:.4f}, which is what was booked. "
        "Compare the model's prices with include/broker/prices.yaml."
    )


class Limit(NamedTuple):
    """One bound of spending: what it is called, how much of it there is, what is used or reserved of it."""

    name: str
    most: int
    taken: int
    unit: str  # micro | tokens


def must_fit(limits: list[Limit], micro: int, tokens: int) -> None:
    """Check that the worst case of a call fits all limits.

    Raises:
        BudgetExceeded: names the first that it does not fit, and what is left of it.
    """
    for limit in limits:
        wanted = tokens if limit.unit == "tokens" else micro
        if limit.taken + wanted > limit.most:
            left = _show(max(0, limit.most - limit.taken), limit)
            problem = f"the next model call may need {_show(wanted, limit)}, and {left} of {_show(limit.most, limit)} is left"
            raise BudgetExceeded(limit.name, f"{limit.name}: {problem}. Raise this limit, then clear the task's steps in Airflow.")


def _show(value: int, limit: Limit) -> str:
    return f"{value:,} tokens" if limit.unit == "tokens" else f"${value / 1_000_000:.4f}"


def next_user_content(turn: int, last: list[dict[str, Any]] | None, results: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """Find what the worker's request adds to the transcript.

    Args:
        turn: the turn it asks for, from 1.
        last: content of the assistant's last message; None at the attempt's first turn, which stands already.
        results: Messages API tool_result blocks.

    Returns:
        The new user message's content; None at the first turn, where the task's own prompt (or what a resumed attempt is told) stands.

    Raises:
        BadInput: the results are not exactly those that the last turn asked for.
    """
    asked = [block.get("id") for block in last or [] if block.get("type") == "tool_use"]
    given = [block.get("tool_use_id") for block in results]
    if sorted(map(str, asked)) != sorted(map(str, given)) or any(block.get("type") != "tool_result" for block in results):
        raise BadInput(
            "results", f"turn {turn} needs results of {asked}, and has results of {given}", "Send one tool_result for each tool_use."
        )
    if last is None:
        return None
    return results or [{"type": "text", "text": "You called no tool. Go on with the task, or call finish with a summary."}]


class Resumption(NamedTuple):
    """How an attempt goes on with an older one's transcript: the turn to ask for first, and the user message that asks for it."""

    first_turn: int
    content: list[dict[str, Any]]


def resumption(transcript: list[TranscriptLine], commit: str, kept: bool) -> Resumption | None:
    """Complete a transcript that broke off, so that the model can go on with it.

    Args:
        transcript: by position: user and assistant in turn.
        commit: where the new workspace stands.
        kept: True if that is a commit which the attempt of this transcript made.

    Returns:
        None if no turn of the model stands in it: there is nothing to go on with.
    """
    turns = sum(line.role == "assistant" for line in transcript)
    if not turns:
        return None
    why = "the last one that was made" if kept else NOTHING_KEPT
    note = {"type": "text", "text": _RESUMED.format(commit=commit, why=why)}
    last = transcript[-1]
    if last.role == "user":  # the turn was asked for, and its answer never used
        return Resumption(turns + 1, [*last.content, note])
    lost = [block.get("id") for block in last.content if block.get("type") == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": id_, "content": _NO_RESULT, "is_error": True} for id_ in lost]
    return Resumption(turns + 1, [*results, note])
