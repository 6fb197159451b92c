"""What policy is asked, and what it says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Frozen, nothing extra."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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


class Decision(Frozen):
    """Permit, forbid or review, with who decided, by which rules, on which policy text."""

    decision: Literal["permit", "forbid", "review"]
    decided_by: str
    rules: tuple[str, ...]
    reason: str
    policy_sha256: str
