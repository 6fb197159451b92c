"""Land what is merged on the base branch: prepare in memory, test the tree if it is a new one, push with a lease, record."""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.unit_of_work import Connection, transaction
from include.errors import AirlockError, SandboxFailed
from include.flow.steps.base import Step, fail
from include.flow.verification import tested
from include.flow.waiting import NotYet
from include.gate import verification, verifier
from include.gate.models import TestReport
from include.gate.testing import Asked
from include.goals import service as goals
from include.goals.models import LockedGoalRun
from include.leases.models import Subject
from include.merge import candidates, landing
from include.merge.models import Landed, Landing, LandingConflict
from include.plans.models import Plan
from include.settings import settings
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, GoalRunState


def land(step: Step, context: Any, whole: bool) -> Any:
    """Go on with a landing from what is stored.

    Args:
        whole: True for the end of the goal: every task must be merged, and the goal run is completed. False: land what is merged so far.

    Returns:
        What is waited for, or the landed commit.
    """
    me = step.me(context)
    with transaction("airflow") as connection:
        run = goals.lock(connection, me.dag_id, me.run_id)
        if run.state in ENDED_RUNS and whole:
            return _ended(step, run)
        if whole:
            _require_all_merged(connection, run)
            if run.state == GoalRunState.RUNNING:
                goals.set_state(connection, run, GoalRunState.LANDING)
    try:
        result = _advance(step, run, me.ti_id)
    except LandingConflict as error:
        return _end(step, run, GoalRunState.ESCALATED, str(error))
    except SandboxFailed as error:
        return _end(step, run, GoalRunState.ESCALATED, f"The landing could not be verified: {error}")
    if isinstance(result, str):
        return _end(step, run, GoalRunState.ESCALATED, result)
    if isinstance(result, NotYet):
        return result
    faults.point("landing.land.after-commit")
    step.log.info("Landed as %s. %s", result.commit, result.note)
    if whole:
        with transaction("airflow") as connection:
            run = goals.lock(connection, me.dag_id, me.run_id)
            if run.state is GoalRunState.LANDING:
                goals.set_state(connection, run, GoalRunState.COMPLETED)
    return result.commit


def _ended(step: Step, run: LockedGoalRun) -> str | None:
    if run.state != GoalRunState.COMPLETED:
        fail(f"The goal run is {run.state}: {run.reason}")
    step.log.info("Landed already as %s.", run.landed_commit)
    return str(run.landed_commit)


def _require_all_merged(connection: Connection, run: LockedGoalRun) -> None:
    plan = Plan.model_validate_json(goals.plan_of(connection, run.id) or "")
    if missing := tasks.unmerged(connection, run.id, tuple(task.key for task in plan.tasks)):
        fail(f"Not merged, whatever Airflow shows: {', '.join(missing)}. Clear their steps, then this one.")


def _advance(step: Step, run: LockedGoalRun, ti_id: str) -> NotYet | Landed | str:
    """A string: the verdict on the landing is red, in words."""
    while True:
        with transaction("airflow") as connection:
            prepared = landing.prepare_landing(connection, settings(), run.id)
        if prepared.needs_verification:
            waits = _verify(step, run, prepared, ti_id)
            if waits is not None:
                return waits
        with transaction("airflow") as connection:
            landed = landing.land(connection, settings(), run.id, prepared)
        if landed.outcome != "moved":
            return landed


def _verify(step: Step, run: LockedGoalRun, prepared: Landing, ti_id: str) -> NotYet | str | None:
    case = candidates.landing_case(run, prepared.candidate)
    with transaction("airflow") as connection:
        verdict = verifier.verdict(connection, case)
    if verdict is None:
        report = tested(settings(), Asked(Subject(run.id, prepared.candidate.commit), run.repository, ti_id))
        if not isinstance(report, TestReport):
            return report
        with transaction("airflow") as connection:
            verdict = verification.request(connection, settings(), run, case, prepared.candidate, report)
    if verdict.green is None:
        return NotYet("judged", str(verdict.id), "Waiting for the gatekeeper's verdict on the landing.")
    for line in candidates.told(verdict):
        step.log.warning(line)
    return None if verdict.green else f"The base branch has moved, and with it the tests fail. {candidates.red(verdict).reason}"


def _end(step: Step, run: LockedGoalRun, state: GoalRunState, words: str) -> None:
    with transaction("airflow") as connection:
        goals.set_state(connection, goals.lock(connection, run.dag_id, run.run_id), state, words)
    try:
        with transaction("airflow") as connection:
            words = f"{words} {landing.keep_branch(connection, settings(), run.id)}"
    except AirlockError as error:
        step.log.warning("The branch could not be brought to the repository: %s", error)
    fail(f"{state}: {words}")
