"""What people do to a live task: cancel it, mark it, clear it. The sandbox is gone within 5 s, and everybody tells the same story."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.e2e.conftest import Stack

pytestmark = pytest.mark.slow
GONE_S = 5.0


def live(stack: Stack, run: str) -> dict[str, Any] | None:
    rows = stack.sql(
        "SELECT l.*, a.state AS attempt FROM leases l JOIN attempts a USING (task_run, epoch)"
        " WHERE l.goal_run = %s AND l.kind = 'work' AND l.ended_at IS NULL AND a.state = 'WORKING'", run)  # fmt: skip
    return rows[0] if rows else None


def working(stack: Stack, goal: str, repository: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Submit a goal and wait until its worker works: (goal run, its row as JSON, the lease)."""
    run = stack.submit(goal, repository)
    lease = wait_until("a worker works", lambda: live(stack, run), 90)
    return run, stack.show(run), lease


def seconds_until_gone(stack: Stack, lease: dict[str, Any], since: float) -> float:
    """Until the warden has removed the sandbox, by the lease's row."""
    wait_until("the sandbox is gone", lambda: stack.sql("SELECT 1 FROM leases WHERE id = %s AND ended_at IS NOT NULL", lease["id"]), 20)
    return time.monotonic() - since


def mark(stack: Stack, row: dict[str, Any], step: str, state: str) -> None:
    path = f"/dags/{row['dag_id']}/dagRuns/{row['run_id']}/taskInstances/{step}"
    answer = stack.airflow._ask("PATCH", path, {"new_state": state})
    assert answer.status_code == 200, answer.text


def clear(stack: Stack, row: dict[str, Any], steps: list[str]) -> None:
    body = {"dry_run": False, "dag_run_id": row["run_id"], "task_ids": steps, "only_failed": False, "reset_dag_runs": True}
    answer = stack.airflow._ask("POST", f"/dags/{row['dag_id']}/clearTaskInstances", body)
    assert answer.status_code == 200, answer.text


def same_story(stack: Stack, run: str, state: str, airflow: str) -> dict[str, Any]:
    """PostgreSQL, the command line and Airflow tell the same end, and nothing merged."""
    told = stack.wait(run)
    stored = stack.sql("SELECT state FROM goal_runs WHERE id = %s", run)[0]["state"]
    there = wait_until(
        "the run ends",
        lambda: (
            (stack.airflow.run(told["dag_id"], told["run_id"]) or {}).get("state") in ("failed", "success")
            and stack.airflow.run(told["dag_id"], told["run_id"])
        ),
        60,
    )
    assert (told["state"], stored, there["state"]) == (state, state, airflow)
    return told


def test_cancel_by_the_command_line(containers: Stack, tiny: Path) -> None:
    run, _row, lease = working(containers, "E2E cancel", tiny)
    done = containers.run("goal", "cancel", run)
    assert done.returncode == 0, done.stderr
    took = containers.sql("SELECT extract(epoch FROM ended_at - revoked_at)::float AS s FROM leases WHERE id = %s", lease["id"])[0]["s"]
    print(f"cancelled: sandbox gone {took:.1f} s after the revoke")
    assert took < GONE_S
    told = same_story(containers, run, "CANCELLED", "failed")
    assert told["tasks"][0]["state"] == "CANCELLED" and not told["landed_commit"]


@pytest.mark.parametrize("state", ["failed", "success"])
def test_the_live_lease_step_is_marked(containers: Stack, tiny: Path, state: str) -> None:
    run, row, lease = working(containers, f"E2E mark {state}", tiny)
    since = time.monotonic()
    mark(containers, row, "slow.lease", state)
    took = seconds_until_gone(containers, lease, since)
    print(f"marked {state}: sandbox gone after {took:.1f} s")
    assert took < GONE_S
    told = same_story(containers, run, "CANCELLED", "failed")
    assert told["tasks"][0]["state"] == "CANCELLED"
    assert containers.sql("SELECT * FROM merges WHERE task_run = %s", lease["task_run"]) == []


def test_the_live_group_is_cleared_and_done_again(containers: Stack, tiny: Path) -> None:
    run, row, lease = working(containers, "E2E again", tiny)
    since = time.monotonic()
    clear(containers, row, [f"slow.{step}" for step in ("admit", "start", "lease", "verify", "merge")])
    assert seconds_until_gone(containers, lease, since) < GONE_S
    told = same_story(containers, run, "COMPLETED", "success")
    attempts = containers.sql("SELECT epoch, failure, counted FROM attempts WHERE task_run = %s ORDER BY epoch", lease["task_run"])
    assert [tuple(attempt.values()) for attempt in attempts] == [(1, "person", False), (2, None, None)]
    assert len(told["commits"]) == 3


def test_the_live_lease_step_alone_is_cleared_and_goes_on_watching(containers: Stack, tiny: Path) -> None:
    run, row, lease = working(containers, "E2E clear one step", tiny)
    clear(containers, row, ["slow.lease"])
    time.sleep(6)
    now = live(containers, run)
    assert now is not None and now["id"] == lease["id"] and now["ti_id"] != lease["ti_id"]
    containers.run("goal", "cancel", run)
    same_story(containers, run, "CANCELLED", "failed")


def test_the_run_is_marked_failed(containers: Stack, tiny: Path) -> None:
    run, row, lease = working(containers, "E2E mark the run", tiny)
    since = time.monotonic()
    containers.airflow.mark(row["dag_id"], row["run_id"], "failed")
    assert seconds_until_gone(containers, lease, since) < GONE_S
    same_story(containers, run, "CANCELLED", "failed")
