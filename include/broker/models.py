"""What the broker counts and carries: prices, usage, a model call, the model's reply."""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Frozen, nothing extra."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Usage(BaseModel):
    """Usage as the Messages API reports it: ``input_tokens`` without cached ones."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cache_read_input_tokens: int | None = Field(default=None, ge=0)
    cache_creation_input_tokens: int | None = Field(default=None, ge=0)
    cache_creation: dict[str, int] | None = None

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
        return (self.cache_creation or {}).get("ephemeral_1h_input_tokens", 0)

    @property
    def prompt(self) -> int:
        """All input tokens, cached ones included."""
        return self.input_tokens + self.cache_read + self.cache_write


class Reply(BaseModel):
    """A usable answer of the Messages API."""

    model_config = ConfigDict(frozen=True, extra="ignore")

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
    max_tokens: int = Field(gt=0)


class Reserved(Frozen):
    """A call whose worst case has been debited."""

    id: UUID
    call: Call
    micro: int
    tokens: int
