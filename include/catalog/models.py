"""A worker definition: who a worker is, what binds it, what it may use, where it runs, what is recorded of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from include.frozen import Frozen
from include.worker.tool_definitions import TOOL_NAMES


class Identity(Frozen):
    """Who it is, for people and for the model."""

    name: str = Field(min_length=1, max_length=80, description="Name for people.")
    system_prompt: str = Field(min_length=1, max_length=20_000, description="What the model is told before every task.")


class Constraint(Frozen):
    """A rule that a witness checks outside the worker."""

    constraint_id: str = Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")
    witness: str = Field(min_length=1, max_length=64, description="Name of the check.")
    on_breach: Literal["block", "warn"] = Field(description="Whether a breach stops the action.")
    value: int | None = Field(default=None, description="A limit, for witnesses that count.")


class Runtime(Frozen):
    """Where it runs."""

    image: str = Field(min_length=1, description="Image of its containers; 'default': the setting AIRLOCK_IMAGE.")
    session_persistence: bool = Field(description="Whether the transcript is kept, and a further attempt may go on from it.")


class Audit(Frozen):
    """What is recorded of it."""

    model_calls: bool = Field(description="Every call of the model, with usage and price.")
    tool_calls: bool = Field(description="Every call of a tool, by its name and path.")


class WorkerDefinition(Frozen):
    """One kind of worker; a file of ``definitions/``."""

    identity: Identity
    constraints: tuple[Constraint, ...] = ()
    tools: tuple[str, ...] = Field(min_length=1)
    trust_level: Literal["supervised", "monitored", "autonomous"]
    runtime: Runtime
    audit: Audit

    @field_validator("tools")
    @classmethod
    def _known(cls, tools: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(tools) - set(TOOL_NAMES)):
            raise ValueError(f"unknown tools {', '.join(unknown)}; there are {', '.join(TOOL_NAMES)}")
        if "finish" not in tools:
            raise ValueError("a worker needs the tool finish, or it cannot end its task")
        if len(set(tools)) != len(tools):
            raise ValueError("a tool is named twice")
        return tools
