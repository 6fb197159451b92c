"""intake: the first step of submit_goal. Checks repository, branch and agent, stores the goal, and runs the base's own tests once."""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.unit_of_work import transaction
from include.errors import AirlockError, BadInput, NotFound, Unavailable
from include.flow.steps.base import Step, fail
from include.flow.verification import tested
from include.flow.waiting import NotYet
from include.frozen import Frozen
from include.gate import base
from include.gate.testing import Asked
from include.goals import intake, service
from include.goals.models import GoalRequest, GoalRun
from include.leases.models import Subject
from include.settings import settings
from include.tasks.models import GoalRunState

COMMAND_LINE = "airlock"
"""Airflow user of the command line and the steps: may name repositories by path."""


class TakenIn(Frozen):
    """What intake hands to the later steps of a submission, by XCom."""

    goal_run: str
    dag_id: str
    run_id: str
    again: bool  # the same key and body came before

    @classmethod
    def find(cls, context: Any) -> TakenIn | None:
        """Read what intake has left; None: nothing was taken in."""
        left = context["ti"].xcom_pull(task_ids="intake")
        return None if left is None else cls.model_validate(left)

    @classmethod
    def of(cls, context: Any) -> TakenIn:
        """Read what intake has left, in a step that runs only after it."""
        return cls.model_validate(context["ti"].xcom_pull(task_ids="intake"))


def request_of(context: Any) -> GoalRequest:
    """The submission, from the run's params. Without a key, the run's own id is the key.

    Raises:
        BadInput: a value cannot be used.
    """
    params = context["params"]
    values = {name: params[name] for name in GoalRequest.model_fields if params.get(name) not in (None, "", {})}
    return intake.read_request({"key": context["run_id"], **values})


class IntakeStep(Step):
    """Stores the goal and its first run; returns the goal run's DAG and run id."""

    def advance(self, context: Any) -> Any:
        """Check, store, and look at the base's tests."""
        try:
            request = request_of(context)
            dag_run = context["dag_run"]
            unlisted = dag_run.triggering_user_name == COMMAND_LINE
            with transaction("airflow") as connection:
                by = dag_run.triggering_user_name or "schedule"
                submission = intake.submit(connection, settings(), request, by, unlisted)
                run = submission.run
                if run.base_commit is None:
                    commit = service.fetch_base(connection, settings(), request.repository, request.base)
                    service.start_branch(connection, settings(), run, commit)
                    run = service.lock(connection, run.dag_id, run.run_id)
                faults.point("intake.store.before-commit")
            faults.point("intake.store.after-commit")
        except (BadInput, NotFound) as error:
            fail(str(error))
        again = submission.goal.created_at < dag_run.start_date  # not ``submission.again``: this step may run twice
        if again:
            self.log.info("The same key and body came before: this is goal run %s, %s.", run.id, run.state)
        return self._base(run, self.me(context).ti_id, again)

    def _base(self, run: GoalRun, ti_id: str, again: bool) -> Any:
        commit = run.started_from
        with transaction("airflow") as connection:
            known = base.result(connection, run.repository, commit)
        if known is None:
            try:
                report = tested(settings(), Asked(Subject(run.id, commit), run.repository, ti_id))
            except Unavailable:
                raise  # an outage: asked again
            except AirlockError as error:
                self._refuse(run, GoalRunState.FAILED, f"base: its tests could not be run: {error}")
            if isinstance(report, NotYet):
                return report
            with transaction("airflow") as connection:
                known = base.store(connection, run.repository, commit, report)
        if known.problem:
            words = f"base: {run.base_branch} at {commit[:12]} cannot be judged: {known.problem} Mend it and submit again."
            self._refuse(run, GoalRunState.REFUSED, words)
        failing = sum(outcome in ("failed", "error") for outcome in known.tests.values())
        self.log.info("Base %s: %d tests, %d known failures.", commit[:12], len(known.tests), failing)
        return TakenIn(goal_run=run.id, dag_id=run.dag_id, run_id=run.run_id, again=again).model_dump()

    def _refuse(self, run: GoalRun, state: GoalRunState, words: str) -> None:
        with transaction("airflow") as connection:
            now = service.lock(connection, run.dag_id, run.run_id)
            if now.state is GoalRunState.SUBMITTED:
                service.set_state(connection, now, state, words)
        fail(words)
