"""The audit log: its entries, and what a walk along its chain found."""

from __future__ import annotations

from typing import NamedTuple


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
