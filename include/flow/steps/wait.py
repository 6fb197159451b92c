"""wait: the last step of submit_goal; does nothing unless the submission asked to wait."""

from __future__ import annotations

from typing import Any

from include.database.unit_of_work import transaction
from include.flow.steps.base import Step, fail
from include.flow.waiting import NotYet
from include.goals import service


class WaitStep(Step):
    """With ``wait``, ends with the goal: one run for a bot to wait on. Red unless the goal landed."""

    def advance(self, context: Any) -> Any:
        """Wait for the goal run's end, if that was asked for."""
        where = context["ti"].xcom_pull(task_ids="intake")
        if not context["params"].get("wait"):
            return where
        with transaction("airflow") as connection:
            run = service.run_of(connection, where["dag_id"], where["run_id"])
        if run["ended_at"] is None:
            return NotYet("run_ended", run["id"], "Waiting for the goal's end.")
        if run["state"] != "COMPLETED":
            fail(f"The goal ended {run['state']}: {run['reason']}")
        return {**where, "commit": run["landed_commit"]}
