"""The end of a trial: PostgreSQL, Airflow and the command line tell the same, nothing is half done, nothing merged without a green verdict."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.e2e.people.trials import Stand, Trial, command, delete_for_good, until

ENDED = ("COMPLETED", "FAILED", "ESCALATED", "CANCELLED", "REFUSED")
GONE_S = 5.0
BUSY = 4.0
"""Load for each core above which Airflow itself takes seconds to hear of an action; what is ours, revoke to gone, must hold its bar all the same."""


def await_end(stand: Stand, trial: Trial, seconds: float) -> None:
    """Until the goal run has an end in PostgreSQL and its DAG run one in Airflow, without a manual step."""
    try:
        until(f"{trial.name} ends", lambda: stand.sql(
            "SELECT 1 FROM goal_runs WHERE id = %s AND ended_at IS NOT NULL", trial.goal_run), seconds, 0.5)  # fmt: skip
        until(f"{trial.name} ends in Airflow", lambda: stand.run_state(trial) in ("success", "failed", "deleted"), seconds, 0.5)
        until(f"{trial.name} leaves no sandbox", lambda: all(lease["ended_at"] for lease in stand.leases(trial)), 20, 0.5)
        if trial.action == "delete the run":
            delete_for_good(stand, trial)
    except TimeoutError as error:
        trial.problems.append(f"{error}: {where(stand, trial)}")


def where(stand: Stand, trial: Trial) -> str:
    """How far the trial has come, in both databases."""
    steps = stand.airflow_sql(
        "SELECT task_id, state, try_number FROM task_instance WHERE dag_id = %s AND run_id = %s", trial.dag_id, trial.run_id
    )
    tasks = stand.sql("SELECT state, reason, epoch FROM task_runs WHERE goal_run = %s", trial.goal_run)
    return f"{tasks} { ({step['task_id']: (step['state'], step['try_number']) for step in steps}) } run {stand.run_state(trial)}"


def compare(stand: Stand, trial: Trial) -> None:
    """Add to the trial's problems whatever does not agree."""
    run = stand.sql("SELECT * FROM goal_runs WHERE id = %s", trial.goal_run)[0]
    tasks = stand.sql("SELECT * FROM task_runs WHERE goal_run = %s", trial.goal_run)
    told = json.loads(stand.commands.submit(command, "show", trial.goal_run, "--json").result()[1])
    there = stand.run_state(trial)
    trial.end = f"{run['state']}/{there}/{told['state']}"
    expected = "deleted" if trial.action == "delete the run" else "success" if run["state"] == "COMPLETED" else "failed"
    _check(trial, run["state"] in trial.expected.goal, f"the goal ended {run['state']}: {run['reason']}")
    _check(trial, there == expected, f"Airflow tells {there}, PostgreSQL {run['state']}")
    _check(trial, told["state"] == run["state"] and bool(told["ended_at"]), f"the command line tells {told['state']}")
    stored = {task["key"]: task["state"] for task in tasks}
    for task in told["tasks"]:
        _check(trial, task["state"] == stored.get(task["key"], "PENDING"), f"the command line tells {task['key']} {task['state']}")
    _whole(stand, trial, run, tasks)
    _lock_held(stand, trial, run, tasks)
    if trial.expected.sandbox == "gone":
        bar = GONE_S if trial.load <= BUSY else 4 * GONE_S
        late = f"the sandbox was gone after {trial.gone_s} s, {trial.ended_s} s after the revoke (load {trial.load})"
        _check(trial, trial.gone_s is not None and trial.gone_s < bar, late)
        _check(trial, trial.ended_s is None or trial.ended_s < GONE_S, late)


def _whole(stand: Stand, trial: Trial, run: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
    for task in tasks:
        _check(trial, task["state"] in ENDED, f"task run left {task['state']}")
        _check(trial, bool(task["reason"]) or task["state"] == "COMPLETED", f"task run {task['state']} without a reason")
    lives = stand.sql("SELECT epoch, state FROM attempts WHERE task_run = ANY (%s) AND ended_at IS NULL AND state <> 'DONE'",
                      [task["id"] for task in tasks])  # fmt: skip
    _check(trial, not lives, f"attempts without an end: {lives}")
    told = stand.sql("SELECT subject FROM audit_log WHERE action = 'attempt.cancelled' AND split_part(subject, '/', 1) = ANY (%s)"
                     " GROUP BY subject HAVING count(*) > 1", [task["id"] for task in tasks])  # fmt: skip
    _check(trial, not told, f"the audit log has it twice: {told}")
    open_leases = [lease["sandbox"] for lease in stand.leases(trial) if lease["ended_at"] is None]
    _check(trial, not open_leases, f"leases without an end: {open_leases}")


def _lock_held(stand: Stand, trial: Trial, run: dict[str, Any], tasks: list[dict[str, Any]]) -> None:
    """No merge without a green verdict for exactly its tree; branch, base and tables agree."""
    merges = stand.sql(
        "SELECT m.*, v.green, v.tree AS judged, v.task_run AS of_task, v.epoch AS of_epoch FROM merges m JOIN verdicts v ON v.id = m.verdict"
        " WHERE m.task_run = ANY (%s) ORDER BY m.created_at", [task["id"] for task in tasks])  # fmt: skip
    for merge in merges:
        same = (merge["judged"], merge["of_task"], merge["of_epoch"]) == (merge["tree"], merge["task_run"], merge["epoch"])
        _check(trial, bool(merge["green"]) and same, f"merged without its green verdict: {merge}")
    completed = {task["id"] for task in tasks if task["state"] == "COMPLETED"}
    _check(trial, {merge["task_run"] for merge in merges} == completed, "merges and completed task runs differ")
    tip = _git(stand, "rev-parse", f"refs/heads/{trial.branch}")
    _check(trial, tip == (run["landed_commit"] or trial.base), f"the base branch is at {tip}")
    mirror = stand.settings.mirrors_dir / f"{stand.name}.git"
    branch = _git(stand, "rev-parse", "--verify", "--quiet", f"refs/heads/{run['goal_branch']}", at=str(mirror))
    wanted = merges[-1]["commit_id"] if merges else trial.base
    _check(trial, branch in (wanted, ""), f"the goal branch is at {branch}, the table of merges says {wanted}")


def _git(stand: Stand, *arguments: str, at: str = "") -> str:
    return subprocess.run(["git", "-C", at or str(stand.path), *arguments], capture_output=True, text=True, check=False).stdout.strip()


def _check(trial: Trial, holds: bool, words: str) -> None:
    if not holds:
        trial.problems.append(words)
