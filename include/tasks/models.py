"""States of goal runs, task runs and attempts, the classes of failure, and what a rework is."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from include.frozen import Frozen

STEPS = ("admit", "start", "lease", "verify", "merge")


class GoalRunState(StrEnum):
    """Where one run of a goal stands."""

    SUBMITTED = "SUBMITTED"
    PLANNING = "PLANNING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    RUNNING = "RUNNING"
    LANDING = "LANDING"
    COMPLETED = "COMPLETED"
    REFUSED = "REFUSED"
    FAILED = "FAILED"
    ESCALATED = "ESCALATED"
    CANCELLED = "CANCELLED"


ENDED_RUNS = frozenset({GoalRunState.COMPLETED, GoalRunState.REFUSED, GoalRunState.FAILED, GoalRunState.ESCALATED, GoalRunState.CANCELLED})
"""States in which a goal run has come to its end."""


class TaskRunState(StrEnum):
    """Where one task of a plan stands in one goal run."""

    PENDING = "PENDING"
    PLANNING = "PLANNING"
    POLICY_CHECK = "POLICY_CHECK"
    LEASED = "LEASED"
    EXECUTING = "EXECUTING"
    BLOCKED = "BLOCKED"
    VERIFYING = "VERIFYING"
    MERGE_QUEUE = "MERGE_QUEUE"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    ESCALATED = "ESCALATED"
    CANCELLED = "CANCELLED"
    PENDING_RETRY = "PENDING_RETRY"


LIVE = frozenset({TaskRunState.LEASED, TaskRunState.EXECUTING, TaskRunState.BLOCKED})
"""States in which a worker has the task, or is about to."""


class AttemptState(StrEnum):
    """The life of one worker."""

    SPAWNING = "SPAWNING"
    READY = "READY"
    WORKING = "WORKING"
    BLOCKED = "BLOCKED"
    COMPLETING = "COMPLETING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    SPAWN_FAILED = "SPAWN_FAILED"


class Failure(StrEnum):
    """Why an attempt ended without a merge. The class decides whether it counts and what comes next."""

    LOST = "lost"  # a process or machine was killed, an outage, a shutdown: not counted
    NEVER_STARTED = "never_started"  # not counted
    WORKER_FAILED = "worker_failed"  # the worker gave up or crashed
    LEASE_BROKEN = "lease_broken"  # deadline or heartbeat
    BUDGET = "budget"  # tokens or money of the lease, the goal or the agent are used up
    MODEL = "model"  # the endpoint refuses: wrong key, bad request, refusal
    MODEL_AWAY = "model_away"  # the endpoint limits the rate, is overloaded or down: not counted
    REFUSED_HANDIN = "refused_handin"  # the quarantine refused the bundle
    RED = "red"  # the gate's verdict
    CONFLICT = "conflict"  # with the goal branch
    PERSON = "person"  # a person cancelled, marked or cleared


class GoesOn(StrEnum):
    """What the attempt after a failed one begins with."""

    TRANSCRIPT = "transcript"  # it resumes: transcript and last commit, where the worker definition keeps sessions; else as COMMIT
    COMMIT = "commit"  # it starts over: a fresh transcript, from the last accepted commit if there is one
    TARGET = "target"  # it starts over on the goal branch as it is now; what was accepted is forgotten


class AttemptRef(NamedTuple):
    """Which attempt is meant: the task run and the epoch that fences it."""

    task_run: str
    epoch: int


class StepRef(NamedTuple):
    """Which step of Airflow asks: the goal's DAG run, the task's key in it, and the step's task-instance id."""

    dag_id: str
    run_id: str
    key: str
    ti_id: str


class TaskRun(Frozen):
    """One task of a plan in one goal run, as it was when it was read."""

    id: str
    goal_run: str
    key: str
    state: TaskRunState
    reason: str
    epoch: int
    feedback: str
    accepted_commit: str | None
    merged_commit: str | None
    resume_from: int | None

    @property
    def attempt(self) -> AttemptRef:
        """Its newest attempt; epoch 0: it has had none."""
        return AttemptRef(self.id, self.epoch)


class LockedTaskRun(TaskRun):
    """A task run whose row is locked until the transaction ends: what a transition needs. Only ``tasks.service`` makes one."""


class Attempt(Frozen):
    """What is known of one attempt."""

    state: AttemptState
    summary: str
    failure: Failure | None
    reason: str
    finished_at: datetime | None


class Ending(NamedTuple):
    """How an attempt ends: its failure's class, what happened in a sentence, and whether it counts."""

    failure: Failure
    reason: str
    counted: bool


class Rework(Frozen):
    """A further attempt (or a further verification of the same one), decided by a step and carried out by the door."""

    id: UUID
    task_run: str
    epoch: int
    ti_id: str
    steps: tuple[str, ...]
    reason: str
    feedback: str
