"""What the offline model says: playbooks, and which turn of which one a request asks for. The format is in docs/playbooks.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from include.errors import BadInput
from include.frozen import Frozen


class ToolUse(Frozen):
    """One tool that the model calls."""

    name: str
    input: dict[str, Any] = Field(default_factory=dict)


class PlayedFault(Frozen):
    """What goes wrong instead of the turn, the first ``times`` times that it is asked for (null: always)."""

    status: int | None = Field(default=None, description="HTTP status: 400, 401, 429, 500, 503, 529.")
    retry_after: float | None = Field(default=None, description="Header retry-after, in seconds.")
    should_retry: bool | None = Field(default=None, description="Header x-should-retry.")
    body: str | None = Field(default=None, description="With status 200: these bytes instead of a message.")
    hang_up: bool = Field(default=False, description="Break the connection in the middle of the answer.")
    times: int | None = Field(default=None, ge=1)


class PlayedTurn(Frozen):
    """One answer of the model."""

    text: str = ""
    tools: tuple[ToolUse, ...] = ()
    plan: dict[str, Any] | None = Field(default=None, description="Said as JSON text (structured output).")
    stop_reason: str | None = Field(default=None, description="Default: tool_use if there are tools, else end_turn.")
    delay_s: float = Field(default=0, ge=0)
    fault: PlayedFault | None = None


class Playbook(Frozen):
    """All that is said for one goal."""

    goal_matches: str = Field(description="A regular expression that is searched for in the first message, without regard to case.")
    plan: dict[str, Any] | None = Field(default=None, description="Short for plans: [{plan: …}].")
    plans: tuple[PlayedTurn, ...] = Field(default=(), description="The n-th planning call gets the n-th, later ones the last.")
    tasks: dict[str, tuple[tuple[PlayedTurn, ...], ...]] = Field(
        default_factory=dict, description="Per task key: attempts, each a list of turns."
    )
    answers: tuple[str, ...] = Field(default=(), description="To ask_master: the n-th question gets the n-th, later ones the last.")

    @model_validator(mode="after")
    def _pattern_compiles(self) -> Playbook:
        re.compile(self.goal_matches)
        return self

    def turn(self, purpose: str, number: int, turn: int) -> PlayedTurn | None:
        """Find the turn at an address, or None.

        Args:
            purpose: ``plan``, ``answer``, or a task's key.
            number: of the planning call, the question or the attempt, from 1.
            turn: of the conversation, from 1.
        """
        if purpose in self.tasks:
            attempts = self.tasks[purpose]
            turns = attempts[min(number, len(attempts)) - 1] if attempts else ()
            return turns[turn - 1] if turn <= len(turns) else None
        if purpose == "plan":
            plans = self.plans or ((PlayedTurn(plan=self.plan),) if self.plan is not None else ())
            return plans[min(number, len(plans)) - 1] if plans else None
        if purpose == "answer" and self.answers:
            return PlayedTurn(text=json.dumps({"answer": self.answers[min(number, len(self.answers)) - 1]}))
        return None


def read(folders: list[Path]) -> list[Playbook]:
    """Read all playbooks (``*.yaml``) of these folders, or of these files, in the order given, then by name.

    Raises:
        BadInput: a file is not a playbook; the message names file, place and problem.
    """
    files = [file for folder in folders for file in ([folder] if folder.is_file() else sorted(folder.glob("*.yaml")))]
    return [_read_file(file) for file in files]


def _read_file(file: Path) -> Playbook:
    try:
        return Playbook.model_validate(yaml.safe_load(file.read_text()))
    except (ValidationError, yaml.YAMLError, re.error) as error:
        raise BadInput("playbook", f"{file}: {error}", "Mend it as docs/playbooks.md describes.") from error


def find(playbooks: list[Playbook], first_message: str) -> Playbook | None:
    """Find the first playbook whose ``goal_matches`` is found in a conversation's first message."""
    return next((book for book in playbooks if re.search(book.goal_matches, first_message, re.IGNORECASE)), None)
