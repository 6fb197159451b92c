"""A lease: the revocable right to work, or to verify, for one attempt on one node."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID


class Grant(NamedTuple):
    """A lease as it was granted."""

    lease: UUID
    sandbox: str
    node: str
    rung: str


class Terms(NamedTuple):
    """The bounds of a lease to work."""

    seconds: float
    max_tokens: int
    max_micro: int
    capabilities: tuple[str, ...]


class Verification(NamedTuple):
    """Where the newest verification of a commit stands. ``evidence`` is the joined row of lease and evidence, or None while it runs."""

    lease: UUID
    sandbox: str
    node: str
    tries: int
    evidence: dict[str, Any] | None
