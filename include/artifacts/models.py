"""Typed results. Each type has one model; what a worker sends is read by the same models as what our own verifier stores."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, TypeAdapter

from include.frozen import Frozen

Count = Annotated[int, Field(ge=0)]


class About(NamedTuple):
    """What a typed result is about: an attempt of a goal run, or (without one) its landing."""

    goal_run: str
    task_run: str | None = None
    epoch: int | None = None


class FileDiff(Frozen):
    """One changed file."""

    type: Literal["file_diff"] = "file_diff"
    path: str = Field(max_length=4096)
    action: Literal["created", "modified", "deleted"]
    diff: str = Field(max_length=64_000, description="Unified diff, cut when long; empty for a binary file.")
    lines_added: Count
    lines_removed: Count
    language: str = Field(default="", max_length=40)


class TestFailure(Frozen):
    """One test that failed."""

    __test__ = False
    test_name: str = Field(max_length=4096)
    outcome: Literal["failed", "error"]


class TestResult(Frozen):
    """One run of a repository's tests."""

    __test__ = False
    type: Literal["test_result"] = "test_result"
    framework: str = Field(default="pytest", max_length=40)
    exit_code: int | None = Field(description="Null: it did not end in time.")
    passed: Count
    failed: Count = Field(description="Failed and error.")
    skipped: Count
    duration_ms: Count
    failures: tuple[TestFailure, ...] = Field(default=(), max_length=50)
    problem: str = Field(default="", max_length=4000, description="Why nothing can be said, else empty.")


class BuildResult(Frozen):
    """One run of a build."""

    type: Literal["build_result"] = "build_result"
    tool: str = Field(max_length=100)
    exit_code: int | None
    duration_ms: Count
    output_dir: str = Field(default="", max_length=4096)
    output_size_bytes: Count = 0
    warnings: tuple[str, ...] = Field(default=(), max_length=100)
    errors: tuple[str, ...] = Field(default=(), max_length=100)


class Log(Frozen):
    """The end of what a program printed."""

    type: Literal["log"] = "log"
    source: Literal["worker", "build", "test", "lint"]
    level: Literal["info", "warn", "error"] = "info"
    text: str = Field(max_length=256_000)


class CostReport(Frozen):
    """What one attempt cost, from the broker's own meter."""

    type: Literal["cost_report"] = "cost_report"
    model: str = Field(max_length=200)
    input_tokens: Count
    output_tokens: Count
    cost_micro: Count = Field(description="Micro-USD.")
    calls: Count
    offline: bool = Field(description="True: the offline playbook answered.")


Artifact = Annotated[FileDiff | TestResult | BuildResult | Log | CostReport, Field(discriminator="type")]
ARTIFACT: TypeAdapter[FileDiff | TestResult | BuildResult | Log | CostReport] = TypeAdapter(Artifact)
"""Reads any artifact by its type."""
