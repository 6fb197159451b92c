"""A lease: the revocable right to work, or to verify, for one attempt on one node."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

from include.frozen import Frozen


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


class Work(NamedTuple):
    """What a lease to work is for: an attempt of a goal run, the commit that it starts from, its terms, and the task instance that asks."""

    goal_run: str
    task_run: str
    epoch: int
    input_commit: str  # ``bundles/<commit>.bundle`` must exist
    terms: Terms
    ti_id: str


class Subject(NamedTuple):
    """What is verified and for whom: a commit of a goal run; of an attempt, or (both None) of the base or a landing.

    ``base`` is the commit whose tests and settings judge it (None: its own).
    """

    goal_run: str
    commit: str
    task_run: str | None = None
    epoch: int | None = None
    base: str | None = None


Standing = Literal["ended", "revoked", "tokens", "usd", "unwatched", "expired", "silent"]
"""What the SQL function ``standing`` says of a lease that does not hold."""


class SandboxEnd(Frozen):
    """What the warden stored of a sandbox that has ended."""

    exit_code: int | None
    out_of_memory: bool
    because: str
    handin_sha256: str | None
    handin_refused: str | None
    log: bytes


class WorkLease(Frozen):
    """The lease of one attempt, with the evidence of its sandbox's end and PostgreSQL's judgement at the moment of the read."""

    id: UUID
    sandbox: str
    goal_run: str
    task_run: str
    epoch: int
    input_commit: str
    max_tokens: int
    tokens_used: int
    max_micro: int
    spent_micro: int
    excess_micro: int
    granted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    revoked_at: datetime | None
    revoke_reason: str | None
    broken: str | None  # the standing for which the lease step revoked it
    standing: Standing | None
    past_patience: bool | None  # revoked, past its grace, and the warden had its time; None: not revoked
    watched: bool | None
    exit_code: int | None
    out_of_memory: bool | None
    because: str | None
    handin_sha256: str | None
    handin_refused: str | None
    log: bytes | None  # None: its sandbox has not ended

    @property
    def has_evidence(self) -> bool:
        """Whether the warden has stored how its sandbox ended."""
        return self.log is not None


class Verification(NamedTuple):
    """Where the newest verification of a commit stands; ``evidence`` is None while it runs."""

    lease: UUID
    sandbox: str
    node: str
    tries: int
    evidence: SandboxEnd | None
