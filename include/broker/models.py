"""What the broker counts and carries: prices, usage, a model call, the model's reply; and what it reads of leases and messages."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple
from uuid import UUID

from pydantic import ConfigDict, Field, model_validator

from include.frozen import Frozen
from include.tasks.models import AttemptRef


class Tier(Frozen):
    """Prices in micro-USD per token (the same number as USD per million tokens), for prompts longer than ``above`` tokens."""

    above: int = Field(default=0, ge=0)
    input: Decimal = Field(ge=0)
    output: Decimal = Field(ge=0)
    cache_read: Decimal = Field(ge=0)
    cache_write: Decimal = Field(ge=0)
    cache_write_1h: Decimal = Field(ge=0)


class Prices(Frozen):
    """The tiers of one model, by rising ``above``, and the table that they are from."""

    table: str
    tiers: tuple[Tier, ...] = Field(min_length=1)


MOST_TOKENS = 10_000_000
"""More tokens of one kind than one call can have: ten times the largest window of any model, and what a whole lease may use at most."""
Tokens = Annotated[int, Field(strict=True, ge=0, le=MOST_TOKENS)]
"""A figure of an endpoint. Sums of them, and their price, fit the tables' columns."""


class Written(Frozen):
    """The tokens that were written to the cache, by how long they are kept."""

    model_config = ConfigDict(extra="ignore")

    ephemeral_5m_input_tokens: Tokens | None = None
    ephemeral_1h_input_tokens: Tokens | None = None


class Usage(Frozen):
    """Usage as the Messages API reports it: ``input_tokens`` without cached ones. Figures that cannot be true are refused."""

    model_config = ConfigDict(extra="ignore")

    input_tokens: Tokens
    output_tokens: Tokens
    cache_read_input_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_creation: Written | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Usage:
        if self.cache_write_1h > self.cache_write:
            raise ValueError(
                f"{self.cache_write_1h} tokens kept for an hour are more than the {self.cache_write} that were written to the cache"
            )
        return self

    @property
    def cache_read(self) -> int:
        """Tokens read from the cache."""
        return self.cache_read_input_tokens or 0

    @property
    def cache_write(self) -> int:
        """Tokens written to the cache, for 5 minutes or an hour."""
        return self.cache_creation_input_tokens or 0

    @property
    def cache_write_1h(self) -> int:
        """Those of ``cache_write`` that are kept for an hour."""
        return (self.cache_creation and self.cache_creation.ephemeral_1h_input_tokens) or 0

    @property
    def prompt(self) -> int:
        """All input tokens, cached ones included."""
        return self.input_tokens + self.cache_read + self.cache_write


class Reply(Frozen):
    """A usable answer of the Messages API."""

    model_config = ConfigDict(extra="ignore")

    content: list[dict[str, Any]]
    stop_reason: str
    usage: Usage

    @property
    def text(self) -> str:
        """All text blocks, joined."""
        return "".join(block.get("text", "") for block in self.content if block.get("type") == "text")


class Call(Frozen):
    """A model call that is to be made.

    ``request`` is what asked (a message's stored idempotency key or a request row's id): one call is made for it, ever.
    """

    request: str
    agent: str
    goal_run: str
    task_run: str | None
    epoch: int | None
    lease: UUID | None
    purpose: str
    model: str
    address: str
    body: dict[str, Any]
    max_tokens: int = Field(gt=0, le=MOST_TOKENS)


class Held(Frozen):
    """A model call that is not over: what is held back for it, in micro-USD, which is the price of so many tokens."""

    id: UUID
    micro: int
    input_tokens: int
    output_tokens: int


class Reserved(Held):
    """A call whose worst case has been debited by this process."""

    call: Call


class OpenCall(Held):
    """A call that another process left open; ``sent``: it may have reached the endpoint."""

    agent: str
    owner: str
    request: str
    sent: bool
    http_attempts: int


class AgentModels(Frozen):
    """Which models an agent uses for what."""

    name: str
    planner_model: str
    worker_model: str
    advice_model: str


class Pending(Frozen):
    """A message that waits for an answer that a model gives. ``idempotency_key`` as it is stored: no worker can take another's."""

    task_run: str
    epoch: int
    message_id: UUID
    type: str
    idempotency_key: str
    seq: int

    @property
    def attempt(self) -> AttemptRef:
        """Whose message it is."""
        return AttemptRef(self.task_run, self.epoch)


class TranscriptLine(NamedTuple):
    """One message of a transcript, as the Messages API has it."""

    role: str
    content: list[dict[str, Any]]


class AssignedLease(Frozen):
    """The lease of an attempt, with all that its worker's first prompt is made of."""

    id: UUID
    task_run: str
    epoch: int
    goal_run: str
    key: str
    goal_text: str
    plan: str | None
    feedback: str
    capabilities: list[str]
    granted_at: datetime
    expires_at: datetime
    max_tokens: int
    input_commit: str
    resumed_from: int | None
    kept: bool

    @property
    def attempt(self) -> AttemptRef:
        """The attempt that it is of."""
        return AttemptRef(self.task_run, self.epoch)


class RenewedLease(Frozen):
    """A lease that was extended; ``key`` of the message that tells its worker so."""

    id: UUID
    task_run: str
    epoch: int
    capabilities: list[str]
    granted_at: datetime
    expires_at: datetime
    max_tokens: int
    key: str
