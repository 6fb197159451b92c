"""An agent: a named planner-and-broker identity with its models, capabilities and budgets."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from include.plans.models import Capability


class Agent(BaseModel):
    """Frozen, nothing extra. Money in US dollars here, in micro-USD in the database."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")
    planner_model: str = Field(description="Makes plans and answers workers' questions.")
    worker_model: str = Field(description="Drives the workers' tool loops.")
    advice_model: str = Field(description="Routing and advice.")
    capabilities: tuple[Capability, ...] = Field(description="The most that a task of this agent may be given.")
    day_usd: float = Field(gt=0, description="Most money of a calendar day (UTC).")
    month_usd: float = Field(gt=0, description="Most money of a calendar month (UTC).")
