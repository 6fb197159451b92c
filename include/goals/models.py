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
from include.frozen import Frozen, Text
from include.plans.models import Plan
from include.tasks.models import GoalRunState

_DEADLINE = re.compile(r"([0-9]+)\s*(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MOST_S = 2**31 - 1
"""Seconds that the table's column holds."""
MICRO = 1_000_000
"""Micro-USD in a US dollar."""


class GoalRequest(Frozen):
    """A submission, however it came: form, REST or command line."""

    goal: Text = Field(
        min_length=1, max_length=20_000, title="Goal", description="What you want, in plain language. The first line becomes its title."
    )
    repository: Text = Field(
        min_length=1,
        title="Repository",
        description="Name of a registered repository: ./airlock repo list shows them, repo add adds one.",
    )
    base: Text = Field(
        default="main",
        min_length=1,
        max_length=200,
        title="Base branch",
        description="The work starts from this branch and lands on it. Uncommitted changes are not part of the goal.",
    )
    agent: Text = Field(default="jarvis", min_length=1, title="Agent", description="Who plans the work and pays for it.")
    budget_usd: float = Field(
        default=5.0,
        gt=0,
        le=10_000,
        title="Budget (USD)",
        description="Most that this goal may cost, over all its tasks and attempts.",
    )
    deadline: str = Field(
        default="2h",
        max_length=40,
        title="Deadline",
        description="Time for the whole goal: a number and s, m, h or d, for example 90m or 2h.",
        json_schema_extra={"pattern": r"^0*[1-9]\d*\s*[smhd]$"},
    )
    landing: Literal["per_goal", "per_task"] = Field(
        default="per_goal",
        title="Landing",
        description="What reaches the base branch, and when: the finished goal (per_goal), or each task (per_task).",
    )
    key: Text = Field(
        min_length=1, max_length=200, title="Idempotency key", description="Idempotency key: the same key and body is the same goal."
    )
    plan: Plan | None = Field(default=None, title="Plan", description="A plan made by hand; none: the agent's model plans.")

    @field_validator("deadline")
    @classmethod
    def _some_time(cls, value: str) -> str:
        found = _DEADLINE.fullmatch(value.strip())
        if found is None:
            raise ValueError("write a number and a unit, for example 90m or 2h")
        if not 0 < int(found[1]) * _SECONDS[found[2]] <= _MOST_S:
            raise ValueError(f"write at least 1s and at most {_MOST_S // 86400}d, for example 2h")
        return value.strip()

    @field_validator("budget_usd")
    @classmethod
    def _some_money(cls, value: float) -> float:
        if round(value * MICRO) < 1:
            raise ValueError("write at least 0.000001, a micro-dollar: nothing smaller is counted")
        return value

    @property
    def deadline_s(self) -> int:
        """The deadline in seconds."""
        found = _DEADLINE.fullmatch(self.deadline)
        assert found is not None
        return int(found[1]) * _SECONDS[found[2]]

    @property
    def budget_micro(self) -> int:
        """The budget in micro-USD."""
        return round(self.budget_usd * MICRO)

    @property
    def sha256(self) -> str:
        """Hash of everything but the key: equal bodies are the same request."""
        body = json.dumps(self.model_dump(mode="json", exclude={"key"}), sort_keys=True)
        return hashlib.sha256(body.encode()).hexdigest()

    def columns(self) -> dict[str, str | int]:
        """Name the columns of the table ``goals`` that hold what was asked for."""
        return {
            "title": self.title,
            "text": self.goal,
            "repository": self.repository,
            "base_branch": self.base,
            "agent": self.agent,
            "budget_micro": self.budget_micro,
            "deadline_s": self.deadline_s,
            "landing": self.landing,
            "idempotency_key": self.key,
            "request_sha256": self.sha256,
        }

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
