"""admit: may this task's worker be let in? Policy, room on a node, what an attempt that is resumed left, the next epoch and its lease."""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.unit_of_work import transaction
from include.flow.steps.base import Step, fail
from include.flow.waiting import NotYet
from include.goals import service as goals
from include.merge import service as merges
from include.settings import settings
from include.tasks import admission, resume
from include.tasks import service as tasks
from include.tasks.admission import Admission, Knock
from include.tasks.models import TaskRunState
from include.tasks.resume import Taken


class AdmitStep(Step):
    """Grants the next attempt of a task run."""

    def advance(self, context: Any) -> Any:
        """Ask for admission. If a lost attempt's commits must be imported first, do that outside the transaction and ask again."""
        repository, said = self._ask(context, None)
        while said.left is not None:
            self.log.info(said.words)
            _, said = self._ask(context, resume.take_in(settings(), repository, said.left))
        if said.outcome == "wait":
            return NotYet(said.query, said.subject, said.words)
        if said.outcome == "refused":
            fail(said.words)
        self.log.info(said.words)
        return None

    def _ask(self, context: Any, taken: Taken | None) -> tuple[str, Admission]:
        me = self.me(context)
        with transaction("airflow") as connection:
            run = goals.lock(connection, me.dag_id, me.run_id)
            document = goals.plan_of(connection, run.id)
            if document is None:
                fail(f"Goal run {run.id} follows no plan. Submit the goal again.")
            row = tasks.lock(connection, run.id, me.key)
            if row.state == TaskRunState.MERGE_QUEUE:
                merges.recognise(connection, settings(), row.attempt)
            knock = Knock(document, me.key, me.ti_id, context["ti"].max_tries, self.retries or 0)
            said = admission.entry(connection, settings(), run, knock, lambda: goals.start(connection, settings(), run), taken)
        faults.point("admit.grant.after-commit")
        return run.repository, said
