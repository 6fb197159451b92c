"""The audit log: its entries, and what a walk along its chain found; the notices that people get; an operator, and what a command did."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from pydantic import Field

from include.frozen import Frozen

Command = Literal["cancel", "extend", "prune", "add repository", "stop"]
Way = Literal["command line", "supervisor"]


class AuditEntry(NamedTuple):
    """What is to be appended to the audit log: who did what to whom, and what else counts."""

    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class Notice(Frozen):
    """What people are to be told. The same ``key`` is told once."""

    key: str
    kind: Literal["incident", "warning"]
    goal_run: str | None
    task_run: str | None
    words: str


class PastNotice(Frozen):
    """What people were told of a goal run."""

    kind: Literal["incident", "warning"]
    task_run: str | None
    words: str
    created_at: datetime


class Link(NamedTuple):
    """One entry as its hash covers it; ``at_micros`` are microseconds since 1970, ``detail`` is PostgreSQL's text of it."""

    position: int | None
    previous: str | None
    hash: str | None
    id: str
    at_micros: int
    actor: str
    action: str
    subject: str
    detail: str


class Chain(NamedTuple):
    """What a walk found. ``broken_at`` is the first position that does not hold, ``problem`` says why; None: the chain is whole."""

    entries: int
    head: str
    broken_at: int | None
    problem: str | None

    @property
    def whole(self) -> bool:
        """Every link holds, and a head that was asked for is in the chain."""
        return self.problem is None


class LoggedEntry(Frozen):
    """One entry as people read it. ``position`` and ``hash`` are None until its transaction has committed."""

    position: int | None
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]
    hash: str | None


class Operator(Frozen):
    """Who gives a command: a person or process by name, and the way by which the command came."""

    name: str = Field(min_length=1)
    via: Way


class GoalCancelled(Frozen):
    """What cancelling a goal run did. ``was``: its state before; ``ended``: it was this command that ended it."""

    was: str
    ended: bool


class Extended(Frozen):
    """A task that was given more time, and when its lease expires now."""

    task: str
    expires_at: datetime
