"""What policy is asked, and what it says."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from include.frozen import Frozen


class AdmissionRequest(Frozen):
    """May this task's worker be let in?"""

    agent: str
    agent_capabilities: tuple[str, ...]
    task_run: str
    capabilities: tuple[str, ...]
    touches: tuple[str, ...]
    worker: str
    worker_known: bool
    left_micro: int
    seconds_left: int

    @property
    def action(self) -> str:
        """What is asked for, as the record of decisions names it."""
        return "admit"

    @property
    def inputs(self) -> dict[str, Any]:
        """What the decision is made from."""
        return self.model_dump(mode="json")


class UseRequest(Frozen):
    """May the worker of a live attempt use this capability, for what it says?"""

    task_run: str
    epoch: int
    lease: tuple[str, ...]
    capability: str
    detail: dict[str, Any]
    reason: str

    @property
    def action(self) -> str:
        """What is asked for, as the record of decisions names it."""
        return self.capability

    @property
    def inputs(self) -> dict[str, Any]:
        """What the decision is made from."""
        return self.model_dump(mode="json", exclude={"task_run", "epoch"})


PolicyQuestion = AdmissionRequest | UseRequest
"""All that policy can be asked."""


class Decision(Frozen):
    """Permit, forbid or review, with who decided, by which rules, on which policy text."""

    decision: Literal["permit", "forbid", "review"]
    decided_by: str
    rules: tuple[str, ...]
    reason: str
    policy_sha256: str


class PolicyRecord(NamedTuple):
    """A question with its answer, for the attempt that it is about: what is recorded."""

    goal_run: str
    epoch: int
    question: PolicyQuestion
    decision: Decision
