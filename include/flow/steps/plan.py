"""plan: turn the goal into a checked plan, by hand or by the agent's model through its broker, and store it."""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.unit_of_work import transaction
from include.errors import ModelFailed
from include.flow.steps.base import Step, fail
from include.flow.steps.intake import TakenIn, request_of
from include.flow.waiting import NotYet
from include.goals import service
from include.goals.models import LockedGoalRun
from include.plans import planner
from include.plans.models import Plan
from include.repository import mirror, trees
from include.settings import settings
from include.tasks.models import ENDED_RUNS, GoalRunState

_PERSON_CAN_MEND = {"unauthorized", "budget", "rate_limited", "overloaded", "down", "timeout"}


class PlanStep(Step):
    """Plans a goal run once; a second execution finds the stored plan."""

    def advance(self, context: Any) -> Any:
        """Go on from what is stored: nothing asked yet, asked, answered, refused once."""
        where = TakenIn.of(context)
        ended: tuple[GoalRunState, str] | None = None
        result: Any = None
        with transaction("airflow") as connection:
            run = service.lock(connection, where.dag_id, where.run_id)
            if run.plan is not None:
                return None
            if run.state in ENDED_RUNS:
                fail(f"The goal run is {run.state}: {run.reason}")
            if run.state == GoalRunState.SUBMITTED:
                service.set_state(connection, run, GoalRunState.PLANNING)
            try:
                result = self._plan(connection, run, request_of(context).plan)
            except ModelFailed as error:
                ended = (GoalRunState.ESCALATED if error.kind in _PERSON_CAN_MEND else GoalRunState.FAILED, str(error))
            if isinstance(result, list):
                ended = (
                    GoalRunState.FAILED,
                    "plan: " + "; ".join(result) + ". Mend the plan, or word the goal more narrowly, and submit again.",
                )
            if ended is not None:
                service.set_state(connection, run, *ended)
        if ended is not None:
            fail(f"{ended[0]}: {ended[1]}")
        return result

    def _plan(self, connection: Any, run: LockedGoalRun, by_hand: Plan | None) -> NotYet | list[str] | None:
        if by_hand is not None:
            return self._keep(connection, run, by_hand)
        findings: list[str] = []
        number = lost = 0
        while number - lost < planner.TRIES:
            number += 1
            row = planner.answer(connection, run, number)
            if row is None:
                files = trees.files(mirror.path_of(settings(), run.repository), run.started_from)
                planner.ask(connection, run, files, number, findings)
            if row is None or row.state == "requested":
                return NotYet("answered", planner.address(run, number), f"Asking {run.agent}'s model for a plan (call {number}).")
            if planner.was_lost(row) and lost < settings().infrastructure_attempts:
                lost += 1
                continue
            plan = planner.read(row)
            kept = plan if isinstance(plan, list) else self._keep(connection, run, plan)
            if kept is None:
                return None
            findings = kept
            self.log.warning("Plan %d was refused: %s", number, "; ".join(findings))
        return findings

    def _keep(self, connection: Any, run: LockedGoalRun, plan: Plan) -> list[str] | None:
        findings = planner.findings_of(connection, settings(), run, plan)
        if not findings:
            planner.store(connection, run, plan)
            faults.point("plan.store.before-commit")
            self.log.info("Plan: %s", ", ".join(task.key for task in plan.tasks))
        return findings or None
