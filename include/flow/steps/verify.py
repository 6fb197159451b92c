"""verify: quarantine, merge in memory, run the tests of exactly that tree in a fresh sandbox, ask the gatekeeper for the verdict."""

from __future__ import annotations

from typing import Any

from include import inert
from include.database.unit_of_work import Connection, transaction
from include.errors import SandboxFailed, StaleEpoch
from include.flow.steps.base import Step, fail
from include.flow.verification import tested
from include.flow.waiting import NotYet
from include.gate import verifier
from include.gate.models import TestReport, Verdict
from include.gate.testing import Asked
from include.goals import service as goals
from include.leases.models import Subject
from include.merge import candidates
from include.merge.candidates import Failed, NotVerifiable, Opened, Wanted
from include.repository.models import Candidate
from include.settings import settings
from include.tasks import reworks
from include.tasks import service as tasks
from include.tasks.models import Failure, Rework, TaskRunState
from include.tasks.reworks import Asker

_SHOWN = {"tree", "suite", "green", "findings"}
"""Of a verdict, what people see of it as the step's XCom."""


class VerifyStep(Step):
    """Ends when the verdict is green for exactly the tree that would be merged; anything else is a rework or the end."""

    made: tuple[int, Candidate] | None = None
    """Of this process: the epoch, and the candidate that it has made for it."""

    def advance(self, context: Any) -> Any:
        """Go on from what is stored."""
        me = self.me(context)
        with transaction("airflow") as connection:
            run = goals.lock(connection, me.dag_id, me.run_id)
            wanted = Wanted(goals.plan_of(connection, run.id) or "", self.task_key, self.epoch)
            opened = candidates.open_or_cancel(connection, settings(), run, wanted)
            found = self._found(connection, opened) if isinstance(opened, Opened) else None
        if isinstance(opened, NotVerifiable):
            return self._not_now(context, run.id, opened)
        self.epoch = opened.attempt.epoch
        found = found or candidates.candidate(settings(), opened)
        self.made = None if isinstance(found, Failed) else (opened.attempt.epoch, found)
        try:
            result = found if isinstance(found, Failed) else self._judge(context, opened, found)
            if isinstance(result, NotYet):
                return result
            self._settle(context, opened, result)
        except StaleEpoch as error:
            self.log.warning("%s", error)
        return None

    def _found(self, connection: Connection, opened: Opened) -> Candidate | Failed | None:
        """The candidate that was made before, if it is still the one."""
        if self.made is not None and self.made[0] == opened.attempt.epoch and candidates.still(settings(), opened, self.made[1]):
            return self.made[1]
        return candidates.held(connection, settings(), opened)

    def _not_now(self, context: Any, goal_run: str, why: NotVerifiable) -> NotYet | None:
        if why.lease is not None:
            return NotYet("unwatched", str(why.lease), why.words)
        if why.fine:
            self.log.info(why.words)
        elif (before := self._undone(goal_run, self.me(context).ti_id)) is not None:
            self.carry_out(context, before)
        else:
            fail(why.words)
        return None

    def _undone(self, goal_run: str, ti_id: str) -> Rework | None:
        with transaction("airflow") as connection:
            task = tasks.lock(connection, goal_run, self.task_key)
            return reworks.take_over(connection, Asker(task.attempt, ti_id)) if task.state is TaskRunState.PENDING_RETRY else None

    def _judge(self, context: Any, opened: Opened, found: Candidate) -> NotYet | Failed | None:
        """None: green."""
        with transaction("airflow") as connection:
            verdict = verifier.verdict(connection, candidates.case_of(opened, found))
        if verdict is None:
            subject = Subject(opened.run.id, found.commit, *opened.attempt, base=found.parents[0])
            asked = Asked(subject, opened.run.repository, self.me(context).ti_id)
            try:
                report = tested(settings(), asked)
            except SandboxFailed as error:
                return Failed(Failure.LOST, str(error), "")
            if not isinstance(report, TestReport):
                return report
            with transaction("airflow") as connection:
                verdict = candidates.request_verdict(connection, settings(), opened, found, report)
        if verdict.green is None:
            return NotYet("judged", str(verdict.id), "Waiting for the gatekeeper's verdict.")
        self._tell(context, verdict)
        return None if verdict.green else candidates.red(verdict)

    def _tell(self, context: Any, verdict: Verdict) -> None:
        """Give the verdict to people: a line of the log for each expectation that did not hold, and all of it as the XCom ``verdict``."""
        if verdict.green:
            self.log.info("Green: tree %s passed the suite %s.", verdict.tree[:12], verdict.suite)
        else:
            self.log.warning("Red: tree %s did not pass the suite %s.", verdict.tree[:12], verdict.suite)
        for line in candidates.told(verdict):
            self.log.warning(line)
        context["ti"].xcom_push(key="verdict", value=inert.value(verdict.model_dump(mode="json", include=_SHOWN)))

    def _settle(self, context: Any, opened: Opened, failed: Failed | None) -> None:
        with transaction("airflow") as connection:
            if failed is None:
                tasks.set_state(connection, tasks.lock_attempt(connection, opened.attempt), TaskRunState.MERGE_QUEUE)
                return
            asker = Asker(opened.attempt, self.me(context).ti_id)
            decided = reworks.fail_attempt(connection, settings(), asker, *failed)
        self.carry_out(context, decided)
