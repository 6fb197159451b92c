"""outcome: gives the DAG run its colour. Red unless our tables say that the goal landed."""

from __future__ import annotations

from typing import Any

from include.database.unit_of_work import transaction
from include.flow.steps.base import Step, fail
from include.goals import service
from include.tasks.models import GoalRunState


class OutcomeStep(Step):
    """The last teardown."""

    def advance(self, context: Any) -> Any:
        """Say how it ended."""
        me = self.me(context)
        with transaction("airflow") as connection:
            run = service.ensure(connection, me.dag_id, me.run_id)
        if run.state != GoalRunState.COMPLETED:
            fail(f"The goal ended {run.state}: {run.reason}")
        return {"commit": run.landed_commit, "note": run.landing_note}
