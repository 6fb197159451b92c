"""verify: quarantine, merge in memory, run the tests of exactly that tree in a fresh sandbox, ask the gatekeeper for the verdict."""

from __future__ import annotations

from typing import Any

from include.database.unit_of_work import transaction
from include.errors import SandboxFailed, StaleEpoch
from include.flow.steps.base import Step, fail
from include.flow.verification import Asked, tested
from include.flow.waiting import NotYet
from include.gate.models import TestReport
from include.merge import verification as handin
from include.merge.verification import Candidate, Failed
from include.settings import settings
from include.tasks import service as tasks
from include.tasks.models import Failure, TaskRunState


class VerifyStep(Step):
    """Ends when the verdict is green for exactly the tree that would be merged; anything else is a rework or the end."""

    def advance(self, context: Any) -> Any:
        """Go on from what is stored."""
        ti_id = str(context["ti"].id)
        try:
            with transaction("airflow") as connection:
                opened = handin.open_attempt(connection, context["ti"].dag_id, context["run_id"], self.task_key)
            if isinstance(opened, str):
                return self._not_to_be_verified(opened)
            candidate = handin.candidate(settings(), opened)
            result = candidate if isinstance(candidate, Failed) else self._judge(opened, candidate, ti_id)
            if isinstance(result, NotYet):
                return result
            with transaction("airflow") as connection:
                if not isinstance(result, Failed):
                    tasks.set_state(connection, opened.task_run, TaskRunState.MERGE_QUEUE)
                    return result
                decided = tasks.fail_attempt(
                    connection, settings(), opened.task_run, opened.epoch, ti_id, result.failure, result.reason, result.feedback
                )
        except StaleEpoch as error:
            self.log.warning("%s", error)
            return None
        self.carry_out(context, decided)
        return None

    def _judge(self, opened: handin.Opened, candidate: Candidate, ti_id: str) -> NotYet | Failed | str:
        asked = Asked(opened.goal_run, opened.repository, candidate.commit, ti_id, opened.task_run, opened.epoch)
        with transaction("airflow") as connection:
            verdict = handin.verdict(connection, opened, candidate)
        if verdict is None:
            try:
                report = tested(settings(), asked)
            except SandboxFailed as error:
                return Failed(Failure.LOST, str(error), "")
            if not isinstance(report, TestReport):
                return report
            with transaction("airflow") as connection:
                verdict = handin.request_verdict(connection, settings(), opened, candidate, report)
        if verdict.green is None:
            return NotYet("judged", str(verdict.id), "Waiting for the gatekeeper's verdict.")
        if not verdict.green:
            return handin.red(verdict)
        self.log.info("Green: tree %s passed the suite %s.", candidate.tree[:12], verdict.suite)
        return candidate.tree

    def _not_to_be_verified(self, words: str) -> None:
        if words.startswith("fine: "):
            self.log.info(words.removeprefix("fine: "))
            return
        fail(words)
