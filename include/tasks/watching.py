"""One look at an attempt that works: is it finished, lost, over its terms? Judged by our tables and PostgreSQL's clock only."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NamedTuple

from include import faults
from include.artifacts import service as artifacts
from include.artifacts.models import About, Log
from include.database.unit_of_work import Connection
from include.leases import incidents, rules
from include.leases import service as leases
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import LIVE, AttemptState, Failure, Rework, TaskRunState

_INCIDENTS = frozenset({Failure.LOST, Failure.NEVER_STARTED, Failure.MODEL_AWAY, Failure.LEASE_BROKEN, Failure.BUDGET})


class Seen(NamedTuple):
    """What one look saw. ``rework`` goes with the outcome ``rework``; ``milestones`` are (event id, words); ``epoch`` is the attempt's."""

    outcome: Literal["working", "handed_in", "merged", "rework", "gave_up"]
    words: str
    milestones: list[tuple[int, str]]
    rework: Rework | None = None
    epoch: int = 0


def look(connection: Connection, settings: Settings, goal_run: str, key: str, ti_id: str, after: int, calm_s: float) -> Seen:
    """Look once, stamp the attempt as watched, and decide if something is over.

    Args:
        ti_id: the lease step's Airflow task-instance id; it owns the lease from the first look on.
        after: id of the last milestone that was shown.
        calm_s: for how long after an outage nothing expires or is silent.
    """
    row = tasks.lock(connection, goal_run, key)
    return _look(connection, settings, row, ti_id, after, calm_s)._replace(epoch=row["epoch"])


def _look(connection: Connection, settings: Settings, row: dict[str, Any], ti_id: str, after: int, calm_s: float) -> Seen:
    shown = tasks.milestones(connection, row["id"], row["epoch"], after)
    state = TaskRunState(row["state"])
    if state is TaskRunState.COMPLETED:
        return Seen("merged", f"Merged already as {row['merged_commit'][:12]}.", shown)
    if state in (TaskRunState.VERIFYING, TaskRunState.MERGE_QUEUE):
        return Seen("handed_in", "The work is handed in.", shown)
    if state in (TaskRunState.FAILED, TaskRunState.ESCALATED, TaskRunState.CANCELLED):
        return Seen("gave_up", f"{state}: {row['reason']}", shown)
    lease = leases.work_lease(connection, settings, row["id"], row["epoch"], calm_s) if row["epoch"] else None
    if lease is None:
        return Seen("gave_up", "No attempt was admitted. Clear the whole group, so that admit runs first.", shown)
    leases.watch(connection, lease["id"], ti_id)
    return _judge(connection, settings, row, lease, ti_id, shown)


def _judge(
    connection: Connection, settings: Settings, row: dict[str, Any], lease: dict[str, Any], ti_id: str, shown: list[tuple[int, str]]
) -> Seen:
    attempt = tasks.attempt(connection, row["id"], row["epoch"])
    if lease["has_evidence"]:
        _keep_log(connection, row, lease)
    if broken := _over(row, attempt, lease):
        return _give_up(connection, settings, row, lease, ti_id, broken, shown)
    if attempt["state"] == AttemptState.COMPLETING and lease["has_evidence"]:
        tasks.handed_in(connection, row["id"], row["epoch"])
        faults.point("lease.handed-in.before-commit")
        return Seen("handed_in", f"Handed in: {attempt['summary'][:300]}", shown)
    if lease["revoked_at"] is not None and not lease["broken"]:
        return _revoked(connection, settings, row, lease, ti_id, shown)
    if lease["revoked_at"] is None and (broken := rules.broken_term(lease)):
        return _revoke(connection, settings, lease, broken, shown)
    return Seen("working", "", shown)


def _over(row: dict[str, Any], attempt: dict[str, Any], lease: dict[str, Any]) -> rules.Broken | None:
    """Why an attempt is over without a hand-in; None: it is not over, or a person ended it."""
    if row["state"] == TaskRunState.PENDING_RETRY:
        return rules.Broken(Failure.LOST, row["reason"])  # decided before; fail_attempt gives that decision again
    if attempt["state"] == AttemptState.COMPLETING:
        return (
            rules.Broken(Failure.REFUSED_HANDIN, f"The hand-in was refused: {lease['handin_refused']}.")
            if lease["handin_refused"]
            else None
        )
    if lease["broken"]:  # revoked by us: the worker has its grace, then the warden ends it
        return rules.broken_term(lease) if lease["ended_at"] is not None or lease["past_patience"] else None
    if attempt["finished_at"] is not None and attempt["failure"]:
        return rules.Broken(Failure(attempt["failure"]), attempt["reason"])
    if lease["revoked_at"] is not None:
        return None
    if attempt["finished_at"] is not None:
        return rules.Broken(Failure.WORKER_FAILED, attempt["reason"] or "The worker stopped before it had finished.")
    return rules.end_of_sandbox(lease) if lease["ended_at"] is not None else None


def _revoke(connection: Connection, settings: Settings, lease: dict[str, Any], broken: rules.Broken, shown: list[tuple[int, str]]) -> Seen:
    """A term is broken: revoked; the broker tells the worker, and after the grace the warden ends it. What follows is decided then."""
    leases.revoke_broken(connection, settings, lease, broken.reason)
    told = incidents.tell(connection, lease, broken.failure, broken.reason)
    return Seen("working", f"Incident: {told} The lease is revoked." if told else "", shown)


def _keep_log(connection: Connection, row: dict[str, Any], lease: dict[str, Any]) -> None:
    """The sandbox's whole log becomes an artifact (the same again changes nothing); the step's own log carries milestones only."""
    text = bytes(lease["log"]).decode("utf-8", errors="replace")
    if text:
        log = Log(source="worker", level="info" if lease["exit_code"] == 0 else "error", text=text[-256_000:])
        artifacts.store(connection, About(row["goal_run"], row["id"], row["epoch"]), "warden", log)


def _revoked(
    connection: Connection, settings: Settings, row: dict[str, Any], lease: dict[str, Any], ti_id: str, shown: list[tuple[int, str]]
) -> Seen:
    if lease["ended_at"] is None:
        return Seen("working", "", shown)  # the warden has not ended it yet
    if lease["revoke_reason"] == "shutdown":
        return _give_up(connection, settings, row, lease, ti_id, rules.Broken(Failure.LOST, "Airlock was shut down."), shown)
    tasks.cancel(connection, row["id"], row["epoch"], lease["revoke_reason"] or "revoked")
    return Seen("gave_up", f"CANCELLED: {lease['revoke_reason']}", shown)


def _give_up(
    connection: Connection,
    settings: Settings,
    row: dict[str, Any],
    lease: dict[str, Any],
    ti_id: str,
    broken: rules.Broken,
    shown: list[tuple[int, str]],
) -> Seen:
    decided = tasks.fail_attempt(connection, settings, row["id"], row["epoch"], ti_id, broken.failure, broken.reason)
    told = None
    if row["state"] != TaskRunState.PENDING_RETRY and broken.failure in _INCIDENTS:
        told = incidents.tell(connection, lease, broken.failure, broken.reason)
    if isinstance(decided, Rework):
        return Seen("rework", f"Incident: {told}" if told else decided.reason, shown, decided)
    return Seen("gave_up", f"{decided.state}: {decided.story}", shown)


def killed_by_person(connection: Connection, goal_run: str, key: str, ti_id: str, epoch: int, left_at: datetime) -> bool:
    """The lease step was marked or cleared in Airflow: revoke this epoch, if its lease still belongs to this task instance.

    Args:
        left_at: when our own watch left it, by PostgreSQL's clock: whoever has stamped it since has taken it over.

    Returns:
        True if something was revoked. A newer epoch, another owner or an ended attempt: nothing happens.
    """
    row = tasks.lock(connection, goal_run, key)
    if row["epoch"] != epoch or row["state"] not in LIVE:
        return False
    lease = leases.owned(connection, row["id"], epoch, ti_id, left_at)
    if lease is None or lease["watched_by_another"]:
        return False
    return tasks.cancel_by_mark(connection, row, "the lease step was marked or cleared in Airflow")
