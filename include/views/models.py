"""What is shown of goals and of the machine: one frozen type a picture, the same for the command line, pages and chat."""

from __future__ import annotations

from datetime import datetime

from include.frozen import Frozen
from include.gate.models import Finding
from include.governance.models import PastNotice
from include.tasks.models import GoalRunState, TaskRunState


class GoalLine(Frozen):
    """A goal with its newest run, as a list shows it; without a run yet the run's fields are empty."""

    goal: str
    dag_id: str
    title: str
    repository: str
    agent: str
    created_at: datetime
    run: str | None
    state: GoalRunState | None
    reason: str | None
    spent_micro: int | None
    landed_commit: str | None


class GoalOfKey(Frozen):
    """The goal that an idempotency key made, and its first run."""

    goal: str
    run: str


class GoalHead(Frozen):
    """A goal run without its parts. ``offline``: the offline model answered; ``wall_s``: seconds from submission to its end, or to now."""

    goal: str
    run: str
    dag_id: str
    run_id: str
    state: GoalRunState
    reason: str
    title: str
    repository: str
    repository_path: str
    base_branch: str
    goal_branch: str
    base_commit: str | None
    landed_commit: str | None
    landing_note: str
    agent: str
    landing: str
    budget_micro: int
    spent_micro: int
    tokens: int
    offline: bool
    wall_s: float
    created_at: datetime
    ended_at: datetime | None
    deadline_at: datetime


class TaskView(Frozen):
    """A task of the plan in one goal run, with its newest attempt; ``epoch`` 0: it has had none."""

    key: str
    title: str
    state: TaskRunState = TaskRunState.PENDING
    reason: str = ""
    epoch: int = 0
    step: str = ""
    attempt_state: str = ""
    rung: str = ""
    merged_commit: str | None = None
    spent_micro: int = 0
    tokens: int = 0


class VerdictView(Frozen):
    """A verdict that was given. ``key`` and ``epoch`` are None for the landing."""

    key: str | None
    epoch: int | None
    suite: str
    tree: str
    green: bool
    findings: tuple[Finding, ...]


class GoalView(GoalHead):
    """A goal run as it is now: itself, its tasks in the plan's order, its verdicts and notices, oldest first."""

    tasks: tuple[TaskView, ...]
    verdicts: tuple[VerdictView, ...]
    notices: tuple[PastNotice, ...]


class Leftovers(Frozen):
    """How many leases, locks and reservations there are that nothing needs, and of which task runs the streams may be there."""

    leases: int
    locks: int
    reservations: int
    live_task_runs: frozenset[str]
