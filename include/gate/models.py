"""What a sandbox's test run reports, and the facts that a suite judges."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["passed", "failed", "error", "skipped"]


class TestReport(BaseModel):
    """The hand-in of a verify sandbox: JSON, at most 16 MiB, written by ``worker.pyz verify``."""

    __test__ = False
    model_config = ConfigDict(frozen=True, extra="forbid")

    tests: dict[str, Outcome] = Field(description="Outcome per pytest node id.")
    exit_code: int | None = Field(description="pytest's; null: it did not end in time.")
    duration_ms: int = Field(ge=0)
    problem: str | None = Field(description="Why nothing can be said (no test collected, a missing module), else null.")
    output: str = Field(max_length=70_000, description="The end of pytest's output.")


class Facts(BaseModel):
    """One row that a suite judges; stored as ``verdicts.facts``. Lists hold at most 50 names, counts are complete."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["change", "report", "landing"]
    ran: int = Field(description="1 if the test run ended by itself, else 0.")
    exit_agrees: int = Field(description="1 if pytest's exit code agrees with the outcomes, else 0.")
    tests: int = Field(description="Test ids with an outcome.")
    passed: int
    new_failures: int = Field(description="Failed or error now, and not so in the base's own run.")
    gone_tests: int = Field(description="Ids of the base's run that are absent now, or that ran then and are skipped now.")
    files_changed: int
    outside_touches: int = Field(description="Changed paths that no glob of the task allows.")
    cost_micro: int = Field(description="Settled cost of the attempt, micro-USD.")
    max_cost_micro: int = Field(description="The lease's limit, micro-USD.")
    new_failure_names: tuple[str, ...] = ()
    gone_test_names: tuple[str, ...] = ()
    outside_paths: tuple[str, ...] = ()
    problem: str = ""


class Finding(BaseModel):
    """One expectation that did not hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expectation: str = Field(description="Its id in the suite.")
    message: str = Field(description="What to do, in words.")
    severity: Literal["critical", "warning"] = "critical"


class Verdict(BaseModel):
    """A question to the gatekeeper and, once ``green`` is not null, its answer. It never changes again."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: UUID
    goal_run: str
    task_run: str | None
    epoch: int | None
    tree: str
    suite: str
    facts: dict[str, Any]
    green: bool | None
    findings: tuple[Finding, ...] = ()


class BaseResult(BaseModel):
    """The base's own test run: its failures are known failures."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tests: dict[str, Outcome]
    problem: str | None = Field(description="Why nothing can be judged by this base, else null.")
