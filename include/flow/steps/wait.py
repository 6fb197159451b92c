"""wait: the last step of submit_goal, which runs whatever happened before: nothing that was accepted is left without an end."""

from __future__ import annotations

from typing import Any

from include.database.unit_of_work import transaction
from include.flow.steps.base import Step, fail
from include.flow.steps.intake import TakenIn
from include.flow.waiting import NotYet
from include.goals import intake, service


class WaitStep(Step):
    """With ``wait``, ends with the goal (one run for a bot to wait on) and is red unless it landed; without, unless it was launched."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"trigger_rule": "all_done", **kwargs})

    def advance(self, context: Any) -> Any:
        """Settle what was not launched; wait for the goal run's end, if that was asked for."""
        where = TakenIn.find(context)
        if where is None:
            fail("Nothing was taken in. The log of the step intake says why.")
        if context["ti"].xcom_pull(task_ids="launch") is None and not where.again:
            with transaction("airflow") as connection:
                run = intake.settle(connection, where.dag_id, where.run_id)
            fail(f"The goal was not launched; it ended {run.state}: {run.reason}")
        if not context["params"].get("wait"):
            return where.model_dump()
        with transaction("airflow") as connection:
            run = service.ensure(connection, where.dag_id, where.run_id)
        if run.ended_at is None:
            return NotYet("run_ended", run.id, "Waiting for the goal's end.")
        if run.state != "COMPLETED":
            fail(f"The goal ended {run.state}: {run.reason}")
        return {**where.model_dump(), "commit": run.landed_commit}
