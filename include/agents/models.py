"""An agent: a named planner-and-broker identity with its models, capabilities and budgets; and what is asked of its models."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import Field

from include.frozen import Frozen
from include.plans.models import Capability


class Agent(Frozen):
    """An agent as ``agents.yaml`` has it. Money in US dollars here, in micro-USD in the database."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    planner_model: str = Field(description="Makes plans and answers workers' questions.")
    worker_model: str = Field(description="Drives the workers' tool loops.")
    advice_model: str = Field(description="Routing and advice.")
    capabilities: tuple[Capability, ...] = Field(description="The most that a task of this agent may be given.")
    day_usd: float = Field(ge=0.000001, le=1_000_000_000, description="Most money of a calendar day (UTC).")
    month_usd: float = Field(ge=0.000001, le=1_000_000_000, description="Most money of a calendar month (UTC).")


class AgentsFile(Frozen):
    """All of ``agents.yaml``. ``defaults`` are there for YAML's anchors only."""

    defaults: dict[str, Any] = Field(default_factory=dict)
    agents: tuple[Agent, ...]


class Prompt(Frozen):
    """The words and bounds of a question to a model."""

    model: str | None = Field(default=None, description="None: the agent's own for this purpose.")
    system: str | None = None
    messages: list[dict[str, Any]] = Field(description="As the Messages API takes them.")
    answer_schema: dict[str, Any] | None = Field(default=None, alias="schema", description="JSON schema of the answer; None: free text.")
    max_tokens: int | None = Field(default=None, gt=0, le=1_000_000, description="Of the answer; None: the broker's default.")


class Inquiry(Frozen):
    """What a step of Airflow asks of an agent's model, and the address under which it finds the answer."""

    agent: str
    goal_run: str
    purpose: Literal["plan", "advice", "review"]
    address: str = Field(description="``<goal run>/<purpose>/<n>``.")
    body: Prompt


class ModelRequest(Frozen):
    """A stored question that waits for its answer. ``body`` is a ``Prompt`` that nobody has checked yet."""

    id: UUID
    goal_run: str
    purpose: str
    address: str
    body: dict[str, Any]


class Said(Frozen):
    """What became of a question: nothing yet, the model's answer, or why there is none."""

    state: Literal["requested", "done", "failed"]
    error_kind: str | None
    error: str | None
    text: str | None
    stop_reason: str | None


class End(NamedTuple):
    """How a question ends: with the model's text, or with a kind of failure and words for people."""

    text: str | None = None
    stop_reason: str | None = None
    error_kind: str | None = None
    error: str | None = None
