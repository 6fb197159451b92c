"""Cancel a goal: its run is marked failed in Airflow, and what is at work is revoked; the warden ends the sandboxes."""

from __future__ import annotations

import time
from typing import Any

from include.cli import store
from include.cli.rest import Airflow
from include.cli.submit import DAG, dag_run_id
from include.database.unit_of_work import persist, transaction
from include.goals import service as goals
from include.governance import service as governance
from include.leases import service as leases
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, GoalRunState


def cancel(settings: Settings, run: str, who: str, patience_s: float = 6.0) -> bool:
    """Cancel a goal run; nothing is done to one that has ended.

    Args:
        settings: name Airflow and the database.
        run: id of the goal run.
        who: the person, for the reason that is kept.
        patience_s: seconds to wait until its sandboxes are gone.

    Returns:
        Whether all its sandboxes are gone.
    """
    reason = f"cancelled by {who} on the command line"
    row = persist(lambda: _end(run, who, reason), patience_s)
    airflow = Airflow(settings)
    airflow.mark(row["dag_id"], row["run_id"], "failed")
    airflow.mark(DAG, dag_run_id(row["idempotency_key"]), "failed")
    return _wait_until_gone(run, patience_s)


def _end(run: str, who: str, reason: str) -> dict[str, Any]:
    """End the goal run in our tables, if it has no end; returns its row."""
    with transaction("cli") as connection:
        row = store.goal_run(connection, run)
        state = goals.run_of(connection, row["dag_id"], row["run_id"])["state"]  # locked before its tasks, as everywhere
        if state not in ENDED_RUNS:
            for task in tasks.of_goal_run(connection, run):
                tasks.cancel(connection, task["id"], task["epoch"], reason)
            goals.set_state(connection, run, GoalRunState.CANCELLED, reason)
            governance.record(connection, who, "goal.cancelled", run, {"reason": reason, "was": state})
        leases.revoke_goal_run(connection, run, reason)
    return row


def _wait_until_gone(run: str, patience_s: float) -> bool:
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with transaction("cli") as connection:
            if not store.live_leases(connection, run):
                return True
        time.sleep(0.1)
    return False
