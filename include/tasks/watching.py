"""One look at an attempt that works: is it finished, lost, over its terms? Judged by our tables and PostgreSQL's clock only."""

from __future__ import annotations

from typing import Literal, NamedTuple

from include import faults
from include.artifacts import service as artifacts
from include.artifacts.models import About, Log
from include.database.unit_of_work import Connection
from include.leases import incidents, rules
from include.leases import service as leases
from include.leases.models import WorkLease
from include.settings import Settings
from include.tasks import reworks
from include.tasks import service as tasks
from include.tasks.models import Attempt, AttemptState, Failure, LockedTaskRun, Rework, TaskRunState

_INCIDENTS = frozenset({Failure.LOST, Failure.NEVER_STARTED, Failure.MODEL_AWAY, Failure.LEASE_BROKEN, Failure.BUDGET})


class Watcher(NamedTuple):
    """Who looks: a lease step, by its Airflow task-instance id. It owns the lease from its first look on."""

    ti_id: str
    after: int  # id of the last milestone that it has shown
    calm_s: float  # for how long after an outage nothing expires or is silent


class Seen(NamedTuple):
    """What one look saw. ``rework`` goes with the outcome ``rework``; ``milestones`` are (event id, words); ``epoch`` is the attempt's."""

    outcome: Literal["working", "handed_in", "merged", "rework", "gave_up"]
    words: str
    milestones: list[tuple[int, str]] = []  # noqa: RUF012 - never changed
    rework: Rework | None = None
    epoch: int = 0


def look(connection: Connection, settings: Settings, goal_run: str, key: str, watcher: Watcher) -> Seen:
    """Look once, stamp the attempt as watched, and decide if something is over.

    Args:
        key: of the task in its plan.
        watcher: the lease step that looks.
    """
    task = tasks.lock(connection, goal_run, key)
    shown = tasks.milestones(connection, task.attempt, watcher.after)
    return _look(connection, settings, task, watcher)._replace(epoch=task.epoch, milestones=shown)


def _look(connection: Connection, settings: Settings, task: LockedTaskRun, watcher: Watcher) -> Seen:
    if task.merged_commit is not None:
        return Seen("merged", f"Merged already as {task.merged_commit[:12]}.")
    if task.state in (TaskRunState.VERIFYING, TaskRunState.MERGE_QUEUE):
        return Seen("handed_in", "The work is handed in.")
    if task.state in tasks.RESTS:
        return Seen("gave_up", f"{task.state}: {task.reason}")
    lease = leases.work_lease(connection, settings, task.attempt, watcher.calm_s) if task.epoch else None
    if lease is None:
        return Seen("gave_up", "No attempt was admitted. Clear the whole group, so that admit runs first.")
    leases.watch(connection, lease.id, watcher.ti_id)
    return _judge(connection, settings, task, lease, watcher)


def _judge(connection: Connection, settings: Settings, task: LockedTaskRun, lease: WorkLease, watcher: Watcher) -> Seen:
    attempt = tasks.attempt_of(connection, task.attempt)
    _keep_log(connection, task, lease)
    if broken := _over(task, attempt, lease):
        return _give_up(connection, settings, task, lease, reworks.Asker(task.attempt, watcher.ti_id), broken)
    if attempt.state is AttemptState.COMPLETING and lease.has_evidence:
        tasks.handed_in(connection, task)
        faults.point("lease.handed-in.before-commit")
        return Seen("handed_in", f"Handed in: {attempt.summary[:300]}")
    if lease.revoked_at is not None and not lease.broken:
        return _revoked(connection, settings, task, lease, watcher)
    if lease.revoked_at is None and (broken := rules.broken_term(lease)):
        return _revoke(connection, settings, lease, broken)
    return Seen("working", "")


def _over(task: LockedTaskRun, attempt: Attempt, lease: WorkLease) -> rules.Broken | None:
    """Why an attempt is over without a hand-in; None: it is not over, or a person ended it."""
    if task.state is TaskRunState.PENDING_RETRY:
        return rules.Broken(Failure.LOST, task.reason)  # decided before; fail_attempt gives that decision again
    if attempt.state is AttemptState.COMPLETING:
        refused = lease.handin_refused
        return rules.Broken(Failure.REFUSED_HANDIN, f"The hand-in was refused: {refused}.") if refused else None
    if lease.broken:  # revoked by us: the worker has its grace, then the warden ends it
        return rules.broken_term(lease) if lease.ended_at is not None or lease.past_patience else None
    if attempt.finished_at is not None and attempt.failure:
        return rules.Broken(attempt.failure, attempt.reason)
    if lease.revoked_at is not None:
        return None
    if attempt.finished_at is not None:
        return rules.Broken(Failure.WORKER_FAILED, attempt.reason or "The worker stopped before it had finished.")
    return rules.end_of_sandbox(lease) if lease.ended_at is not None else None


def _revoke(connection: Connection, settings: Settings, lease: WorkLease, broken: rules.Broken) -> Seen:
    """Revoke a lease whose term is broken; the broker tells the worker, after the grace the warden ends it, and a later look decides."""
    leases.revoke_broken(connection, settings, lease, broken.reason)
    told = incidents.tell(connection, lease, broken.failure, broken.reason)
    return Seen("working", f"Incident: {told} The lease is revoked." if told else "")


def _keep_log(connection: Connection, task: LockedTaskRun, lease: WorkLease) -> None:
    """Keep the sandbox's whole log as an artifact (the same again changes nothing); the step's own log carries milestones only."""
    text = (lease.log or b"").decode("utf-8", errors="replace")
    if text:
        log = Log(source="worker", level="info" if lease.exit_code == 0 else "error", text=text[-256_000:])
        artifacts.store(connection, About(task.goal_run, *task.attempt), "warden", log)


def _revoked(connection: Connection, settings: Settings, task: LockedTaskRun, lease: WorkLease, watcher: Watcher) -> Seen:
    if lease.ended_at is None:
        return Seen("working", "")  # the warden has not ended it yet
    if lease.revoke_reason == "shutdown":
        asker = reworks.Asker(task.attempt, watcher.ti_id)
        return _give_up(connection, settings, task, lease, asker, rules.Broken(Failure.LOST, "Airlock was shut down."))
    tasks.cancel(connection, task, lease.revoke_reason or "revoked")
    return Seen("gave_up", f"CANCELLED: {lease.revoke_reason}")


def _give_up(
    connection: Connection, settings: Settings, task: LockedTaskRun, lease: WorkLease, asker: reworks.Asker, broken: rules.Broken
) -> Seen:
    decided = reworks.fail_attempt(connection, settings, asker, broken.failure, broken.reason)
    told = None
    if task.state is not TaskRunState.PENDING_RETRY and broken.failure in _INCIDENTS:
        told = incidents.tell(connection, lease, broken.failure, broken.reason)
    if isinstance(decided, Rework):
        return Seen("rework", f"Incident: {told}" if told else decided.reason, rework=decided)
    return Seen("gave_up", f"{decided.state}: {decided.story}")
