"""What a person asks for, and one run of it."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import Field, field_validator

from include.errors import NotFound
from include.frozen import Frozen
from include.plans.models import Plan
from include.tasks.models import GoalRunState

_DEADLINE = re.compile(r"(\d+)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class GoalRequest(Frozen):
    """A submission, however it came: form, REST or command line."""

    goal: str = Field(min_length=1, max_length=20_000, description="What you want, in plain language.")
    repository: str = Field(min_length=1, description="Name of a registered repository.")
    base: str = Field(default="main", min_length=1, max_length=200, description="Branch that the work starts from and lands on.")
    agent: str = Field(default="jarvis", description="Agent that plans and pays.")
    budget_usd: float = Field(default=5.0, gt=0, le=10_000, description="Most that this goal may cost, in US dollars.")
    deadline: str = Field(default="2h", description="Time for the whole goal: a number and s, m, h or d.")
    landing: Literal["per_goal", "per_task"] = Field(default="per_goal", description="Land once at the end, or each task.")
    key: str = Field(min_length=1, max_length=200, description="Idempotency key: the same key and body is the same goal.")
    plan: Plan | None = Field(default=None, description="A plan made by hand; none: the agent's model plans.")

    @field_validator("deadline")
    @classmethod
    def _known_unit(cls, value: str) -> str:
        if not _DEADLINE.fullmatch(value.strip()):
            raise ValueError("write a number and a unit, for example 90m or 2h")
        return value.strip()

    @property
    def deadline_s(self) -> int:
        """The deadline in seconds."""
        found = _DEADLINE.fullmatch(self.deadline)
        assert found is not None
        return int(found[1]) * _SECONDS[found[2]]

    @property
    def budget_micro(self) -> int:
        """The budget in micro-USD."""
        return round(self.budget_usd * 1_000_000)

    @property
    def sha256(self) -> str:
        """Hash of everything but the key: equal bodies are the same request."""
        body = json.dumps(self.model_dump(mode="json", exclude={"key"}), sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    @property
    def title(self) -> str:
        """The first line of the goal, at most 60 characters."""
        line = self.goal.strip().splitlines()[0] if self.goal.strip() else "goal"
        return line if len(line) <= 60 else line[:59].rstrip() + "…"


class Goal(Frozen):
    """What was asked for once, under one idempotency key."""

    id: UUID
    dag_id: str
    title: str
    request_sha256: str
    created_at: datetime


class GoalRun(Frozen):
    """One run of a goal, as it was when it was read; what is left of its money and time is judged by PostgreSQL's clock."""

    id: str
    goal: UUID
    dag_id: str
    run_id: str  # Airflow's
    plan: int | None  # number of the plan that it follows
    state: GoalRunState
    reason: str
    base_commit: str | None  # where the goal branch started
    goal_branch: str
    landed_commit: str | None
    landing_note: str
    ended_at: datetime | None
    title: str
    repository: str
    base_branch: str
    agent: str
    landing: Literal["per_goal", "per_task"]
    budget_micro: int
    left_micro: int
    seconds_left: float

    @property
    def started_from(self) -> str:
        """The commit that its goal branch started at.

        Raises:
            NotFound: it has not started.
        """
        if self.base_commit is None:
            raise NotFound(f"goal run {self.id} has no base yet; clear the steps of its submission in Airflow")
        return self.base_commit


class LockedGoalRun(GoalRun):
    """A goal run whose row is locked until the transaction ends; only ``goals.service`` makes one."""


class UnfinishedRun(Frozen):
    """A goal run without an end, with the key of the submission that made its goal."""

    id: str
    dag_id: str
    run_id: str
    state: GoalRunState
    key: str


class TaskLine(Frozen):
    """One task run in the report of its goal run."""

    key: str
    state: str
    reason: str
    merged_commit: str | None
    spent_micro: int
    attempts: int
    tokens: int
    offline: bool


class GoalCard(Frozen):
    """What the DAG of a goal shows of it. Older stubs, which Airflow keeps, hold the first six fields only."""

    goal_id: str = ""
    dag_id: str
    title: str
    text: str
    repository: str
    base_branch: str
    agent: str
    landing: Literal["per_goal", "per_task"] | None = None
    budget_micro: int | None = None
    deadline_s: int | None = None
