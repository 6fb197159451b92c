"""launch: start the goal's own DAG, as soon as the plan bundle has made it, under the run id that the submission was given."""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperatorLink

from include import faults
from include.database.unit_of_work import transaction
from include.flow.poke import poke
from include.flow.steps.base import Step
from include.flow.steps.intake import TakenIn
from include.flow.trigger_run import trigger_goal_run
from include.goals import service as goals
from include.settings import settings


class GoalLink(BaseOperatorLink):
    """A button on the step that leads to the goal's run; the worker stores the address when the step ends."""

    name = "Goal"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:  # noqa: ARG002
        """The address of the goal's run in the UI."""
        return str(getattr(operator, "goal_address", ""))


class LaunchStep(Step):
    """Triggers the goal's DAG run once."""

    operator_extra_links = (GoalLink(),)

    def advance(self, context: Any) -> Any:
        """Trigger; the same run id twice is one run."""
        where = TakenIn.of(context)
        with transaction("airflow") as connection:
            run = goals.ensure(connection, where.dag_id, where.run_id)
        faults.point("launch.trigger.before")
        trigger_goal_run(where.dag_id, where.run_id, plan=run.plan or 0)
        poke()
        faults.point("launch.trigger.after")
        self.goal_address = f"/dags/{where.dag_id}/runs/{where.run_id}"
        self.log.info("Started: %s%s", settings().api_url, self.goal_address)
        return where.model_dump()
