"""What a sandbox's test run reports, and the facts that a suite judges."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple
from uuid import UUID

from pydantic import Field, field_validator

from include.frozen import Frozen

Outcome = Literal["passed", "failed", "error", "skipped"]
SuiteName = Literal["change", "report", "landing"]


class Allowed(NamedTuple):
    """What a change may be and cost; ``suite`` names the expectation suite that judges it."""

    suite: SuiteName
    touches: tuple[str, ...] = ("**",)  # globs of the paths that may change
    cost_micro: int = 0  # settled cost of the attempt
    max_cost_micro: int = 0  # the lease's limit


class Case(NamedTuple):
    """What the gatekeeper is asked about: a tree of an attempt, or (no task run, no epoch) of a landing."""

    goal_run: str
    task_run: str | None
    epoch: int | None
    tree: str
    bounds: Allowed

    @property
    def key(self) -> dict[str, object]:
        """What makes two cases the same one."""
        return {"goal_run": self.goal_run, "task_run": self.task_run, "epoch": self.epoch, "tree": self.tree, "suite": self.bounds.suite}


class TestReport(Frozen):
    """The hand-in of a verify sandbox: JSON, at most 16 MiB, written by ``worker.pyz verify``."""

    __test__ = False

    tests: dict[str, Outcome] = Field(description="Outcome per pytest node id.")
    exit_code: int | None = Field(description="pytest's; null: it did not end in time.")
    duration_ms: int = Field(ge=0)
    problem: str | None = Field(description="Why nothing can be said (no test collected, a missing module), else null.")
    output: str = Field(max_length=70_000, description="The end of pytest's output.")
    replaced: dict[str, Outcome] = Field(
        default_factory=dict, description="Outcome of the base's own version of what the change rewrote or removed, on the new code."
    )
    harness: tuple[str, ...] = Field(default=(), description="Conftests, settings and helpers of tests that the change brings or changes.")
    tampered: tuple[str, ...] = Field(default=(), description="Why the run cannot be believed.")


class Facts(Frozen):
    """One row that a suite judges; stored as ``verdicts.facts``. Lists hold at most 50 names, counts are complete."""

    kind: SuiteName
    ran: int = Field(description="1 if the test run ended by itself, else 0.")
    exit_agrees: int = Field(description="1 if pytest's exit code agrees with the outcomes, else 0.")
    tests: int = Field(description="Test ids with an outcome.")
    passed: int
    new_failures: int = Field(description="Failed or error now, and not so in the base's own run.")
    gone_tests: int = Field(description="Ids of the base's run that are absent now, or that ran then and are skipped now.")
    tampered: int = Field(description="Signs that the test run was tampered with.")
    rewritten: int = Field(
        description="Base tests that fail on the new code in files that the change rewrote; the task names no such file."
    )
    rewritten_named: int = Field(description="The same, in files that the task names.")
    harness: int = Field(description="Conftests, settings and helpers of tests that changed and that the task does not name.")
    harness_named: int = Field(description="The same, named by the task.")
    files_changed: int
    outside_touches: int = Field(description="Changed paths that no glob of the task allows.")
    cost_micro: int = Field(description="Settled cost of the attempt, micro-USD.")
    max_cost_micro: int = Field(description="The lease's limit, micro-USD.")
    new_failure_names: tuple[str, ...] = ()
    gone_test_names: tuple[str, ...] = ()
    outside_paths: tuple[str, ...] = ()
    rewritten_names: tuple[str, ...] = ()
    rewritten_named_names: tuple[str, ...] = ()
    harness_paths: tuple[str, ...] = ()
    harness_named_paths: tuple[str, ...] = ()
    tampered_words: tuple[str, ...] = ()
    problem: str = ""


class Finding(Frozen):
    """One expectation that did not hold."""

    expectation: str = Field(description="Its id in the suite.")
    message: str = Field(description="What to do, in words.")
    severity: Literal["critical", "ask", "warning"] = Field(
        default="critical", description="ask: a person has to decide; as long as nobody can be asked, it counts as critical."
    )


class Verdict(Frozen):
    """A question to the gatekeeper and, once ``green`` is not null, its answer. It never changes again."""

    id: UUID
    goal_run: str
    task_run: str | None
    epoch: int | None
    tree: str
    suite: str
    facts: dict[str, Any]
    green: bool | None
    findings: tuple[Finding, ...]

    @field_validator("findings", mode="before")
    @classmethod
    def _none_yet(cls, value: Any) -> Any:
        """Read the column of a verdict that is not judged yet, which is null, as no findings."""
        return value or ()


class BaseResult(Frozen):
    """The base's own test run: its failures are known failures."""

    tests: dict[str, Outcome]
    problem: str | None = Field(description="Why nothing can be judged by this base, else null.")
