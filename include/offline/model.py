"""The offline model: a server that speaks the Messages API and plays playbooks. Costs nothing, calls nobody.

``python -m include.offline.model --port N --playbooks DIR…``

A request's ``metadata.user_id`` is its address: ``<goal run>/<task key>/<attempt>`` for work, ``<goal run>/plan/<n>`` for planning,
``<goal run>/answer/<n>`` for a worker's question. The turn is the number of assistant messages so far, plus one; what a lost sandbox
took with it is said again (``place_of``). The playbook is
the first whose ``goal_matches`` is found in the first user message, where the broker and the planner put the goal's text. The format
is in docs/playbooks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from include.broker.rules import NOTHING_KEPT, SANDBOX_LOST
from include.frozen import Frozen
from include.offline.playbook import Playbook, PlayedFault, PlayedTurn, find, read

_COMMIT = re.compile(r"\b[0-9a-f]{40}\b")
_LOST = "No offline playbook has an answer here (address {address}, turn {turn}). Set a model key, or add a playbook: docs/playbooks.md."
_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}


async def _cut_off() -> AsyncIterator[bytes]:
    """Send the beginning of an answer, then break the connection."""
    yield b'{"id": "msg'
    raise ConnectionAbortedError("an offline playbook hangs up")


def count_tokens(*parts: Any) -> int:
    """Count the tokens of real text, at four characters each."""
    return sum(len(part if isinstance(part, str) else json.dumps(part, ensure_ascii=False)) for part in parts if part) // 4 + 1


class Block(BaseModel):
    """A block of a message, as far as a playbook needs it: text, a call of a tool, or the result of one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = ""
    text: str = ""
    id: str = ""
    name: str = ""
    tool_use_id: str = ""
    content: Any = None
    is_error: bool | None = None


class Message(BaseModel):
    """A message of a conversation: a text, or blocks."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    role: str = ""
    content: str | tuple[Block, ...] = ""

    @property
    def blocks(self) -> tuple[Block, ...]:
        """List its blocks; a text is one."""
        return (Block(type="text", text=self.content),) if isinstance(self.content, str) else self.content


class TokenCounts(Frozen):
    """The tokens of an answer."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class SaidMessage(Frozen):
    """An answer of the Messages API."""

    id: str
    type: str = "message"
    role: str = "assistant"
    model: str
    content: tuple[dict[str, Any], ...]
    stop_reason: str | None
    stop_sequence: str | None = None
    usage: TokenCounts


class Place(NamedTuple):
    """Where a conversation stands in its playbook: the turn that comes next, from 1, and how many of its calls are done already."""

    turn: int
    done: int = 0


def place_of(messages: list[dict[str, Any]]) -> Place:
    """Find the playbook's turn that comes next.

    A model that is told that its sandbox was lost does again what was not committed. So the turns after the commit that it is told of do
    not count, and none does if nothing was kept. A commit whose result never came back was made in the last turn: its other calls are left.
    """
    turns, done = 0, 0
    commits: dict[str, int] = {}
    calls: list[Block] = []
    for message in map(Message.model_validate, messages):
        if message.role == "assistant":
            turns, done, calls = turns + 1, 0, [block for block in message.blocks if block.type == "tool_use"]
            continue
        for block in message.blocks:
            commits |= dict.fromkeys(_commits_in(block, calls), turns)
            if block.text.startswith(SANDBOX_LOST):
                turns, done = _after_the_loss(block.text, turns, commits, calls)
    return Place(turns + 1, done)


def _commits_in(block: Block, calls: list[Block]) -> list[str]:
    asked = {call.id for call in calls if call.name == "git_commit"}
    fine = block.type == "tool_result" and block.tool_use_id in asked and not block.is_error
    return _COMMIT.findall(str(block.content)) if fine else []


def _after_the_loss(told: str, turns: int, commits: dict[str, int], calls: list[Block]) -> tuple[int, int]:
    known = [commits[commit] for commit in _COMMIT.findall(told) if commit in commits]
    if known or NOTHING_KEPT in told:
        return (known or [0])[0], 0
    names = [call.name for call in calls]
    done = names.index("git_commit") + 1 if "git_commit" in names else len(names)
    return (turns - 1, done) if done < len(names) else (turns, 0)


class OfflineModel:
    """The application and its memory of how often a fault was played."""

    def __init__(self, playbooks: list[Playbook]) -> None:
        self._playbooks = playbooks
        self._faults: Counter[tuple[str, int]] = Counter()
        routes = [
            Route("/v1/messages", self.messages, methods=["POST"]),
            Route("/v1/messages/count_tokens", self.count, methods=["POST"]),
            Route("/health", lambda _: JSONResponse({"offline playbooks": len(playbooks)})),
        ]
        self.app = Starlette(routes=routes)

    async def count(self, request: Request) -> Response:
        """Answer ``POST /v1/messages/count_tokens``."""
        body = await request.json()
        return JSONResponse({"input_tokens": count_tokens(body.get("system"), body.get("messages"), body.get("tools"))})

    async def messages(self, request: Request) -> Response:
        """Answer ``POST /v1/messages``, streamed if the body says so."""
        body = await request.json()
        address = str((body.get("metadata") or {}).get("user_id", ""))
        number, done = place_of(body.get("messages", []))
        turn = self._turn(address, number, body)
        turn = turn.model_copy(update={"tools": turn.tools[done:]})
        await asyncio.sleep(turn.delay_s)
        if turn.fault is not None and (broken := self._break(turn.fault, (address, number))):
            return broken
        message = _message(turn, body)
        if body.get("stream"):
            return StreamingResponse(_events(message), media_type="text/event-stream", headers=_headers())
        return JSONResponse(message.model_dump(), headers=_headers())

    def _turn(self, address: str, number: int, body: dict[str, Any]) -> PlayedTurn:
        _, purpose, count = [*address.rsplit("/", 2), "", ""][:3]
        first = Message.model_validate(next(iter(body.get("messages") or ()), {}))
        book = find(self._playbooks, "\n".join(block.text for block in first.blocks))
        found = book.turn(purpose, int(count), number) if book and count.isdigit() else None
        return found or PlayedTurn(text=_LOST.format(address=address or "none", turn=number))

    def _break(self, fault: PlayedFault, place: tuple[str, int]) -> Response | None:
        self._faults[place] += 1
        if fault.times is not None and self._faults[place] > fault.times:
            return None
        if fault.hang_up:
            return StreamingResponse(_cut_off(), media_type="application/json", headers=_headers())
        if fault.status is None or fault.status == 200:
            return Response(fault.body or "", media_type="application/json", headers=_headers())
        headers = _headers() | ({"retry-after": f"{fault.retry_after:g}"} if fault.retry_after is not None else {})
        if fault.should_retry is not None:
            headers["x-should-retry"] = str(fault.should_retry).lower()
        error = {"type": _ERRORS.get(fault.status, "api_error"), "message": f"offline playbook plays HTTP {fault.status}"}
        return JSONResponse({"type": "error", "error": error}, status_code=fault.status, headers=headers)


def _headers() -> dict[str, str]:
    return {"request-id": f"req_offline_{uuid4().hex[:16]}"}


def _message(turn: PlayedTurn, body: dict[str, Any]) -> SaidMessage:
    text = json.dumps(turn.plan, ensure_ascii=False) if turn.plan is not None else turn.text
    content: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    content += [{"type": "tool_use", "id": f"toolu_{uuid4().hex[:24]}", "name": tool.name, "input": tool.input} for tool in turn.tools]
    usage = TokenCounts(
        input_tokens=count_tokens(body.get("system"), body.get("messages"), body.get("tools")),
        output_tokens=min(count_tokens(content), int(body.get("max_tokens") or 1)),
    )
    stop = turn.stop_reason or ("tool_use" if turn.tools else "end_turn")
    return SaidMessage(
        id=f"msg_offline_{uuid4().hex[:16]}", model=body.get("model", "offline"), content=tuple(content), stop_reason=stop, usage=usage
    )


async def _events(message: SaidMessage) -> AsyncIterator[str]:
    begun = {"content": (), "stop_reason": None, "usage": message.usage.model_copy(update={"output_tokens": 1})}
    yield _event("message_start", {"message": message.model_copy(update=begun).model_dump()})
    for index, block in enumerate(message.content):
        text = block.get("text")
        empty = {"type": "text", "text": ""} if text is not None else block | {"input": {}}
        yield _event("content_block_start", {"index": index, "content_block": empty})
        delta = {"type": "text_delta", "text": text} if text is not None else _input_delta(block.get("input"))
        yield _event("content_block_delta", {"index": index, "delta": delta})
        yield _event("content_block_stop", {"index": index})
    ending = {"stop_reason": message.stop_reason, "stop_sequence": None}
    yield _event("message_delta", {"delta": ending, "usage": {"output_tokens": message.usage.output_tokens}})
    yield _event("message_stop", {})


def _input_delta(given: Any) -> dict[str, Any]:
    return {"type": "input_json_delta", "partial_json": json.dumps(given)}


def _event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name} | data)}\n\n"


def main() -> None:
    """Serve until stopped."""
    import uvicorn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--playbooks", type=Path, nargs="*", default=[], help="folders (or files) of playbooks, the first match wins")
    arguments = parser.parse_args()
    model = OfflineModel(read([*arguments.playbooks, Path(__file__).parent / "playbooks"]))
    uvicorn.run(model.app, host="127.0.0.1", port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
