"""A plan: the typed task graph that a planner made for a goal. This schema is public (docs/plan.schema.json)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from include.frozen import Frozen, Text

Capability = Literal["test", "build", "git-commit", "pkg-install"]


class LeaseTerms(Frozen):
    """The bounds of one attempt."""

    max_minutes: int = Field(default=15, ge=1, le=240, description="Wall time of one attempt, in minutes.")
    max_tokens: int = Field(default=200_000, ge=1, le=10_000_000, description="Input and output tokens of one attempt.")
    max_usd: float = Field(default=1.0, ge=0.000001, le=1000, description="Money of one attempt, in US dollars.")


class Task(Frozen):
    """One node of a plan: work that one worker does in one sandbox and that merges as one commit."""

    key: str = Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$", description="Short unique name, used in branch and step names.")
    title: Text = Field(min_length=1, max_length=80, description="What a person reads in the graph.")
    kind: Literal["change", "report"] = Field(
        default="change", description="change: must change files. report: may leave the tree as it is."
    )
    prompt: Text = Field(min_length=1, max_length=20_000, description="What the worker is asked to do.")
    depends_on: tuple[Text, ...] = Field(default=(), description="Keys of the tasks that must be merged before this one starts.")
    worker: Text = Field(default="python_developer", description="Name of a worker definition.")
    capabilities: tuple[Capability, ...] = Field(default=("test", "git-commit"), description="Beyond reading and writing in the workspace.")
    lease: LeaseTerms = Field(default_factory=LeaseTerms)
    touches: tuple[Text, ...] = Field(default=("**",), description="Globs of the paths that this task may change.")
    checks: tuple[Literal["tests"], ...] = Field(default=("tests",), description="What the verifier re-runs.")


class Plan(Frozen):
    """A typed task graph."""

    summary: Text = Field(max_length=2000, description="The plan in a few sentences.")
    tasks: tuple[Task, ...] = Field(min_length=1, description="The tasks, in any order.")
