"""The audit log: its entries, and what a walk along its chain found; and the notices that people get."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from include.frozen import Frozen


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


class Told(Frozen):
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
