"""merge: only compares and swaps. The goal branch moves if the verdict is green for exactly that tree."""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.unit_of_work import Connection, transaction
from include.flow.landing import land
from include.flow.steps.base import Step, fail
from include.goals import service as goals
from include.merge import service as merges
from include.settings import settings
from include.tasks import reworks
from include.tasks import service as tasks
from include.tasks.models import LockedTaskRun, Rework, TaskRunState
from include.tasks.reworks import Asker


class MergeStep(Step):
    """Merges a task once; a target that has moved asks for {verify, merge} again, under the same epoch."""

    def advance(self, context: Any) -> Any:
        """Merge, or recognise the merge that was made before."""
        me = self.me(context)
        with transaction("airflow") as connection:
            run = goals.lock(connection, me.dag_id, me.run_id)
            rework = self._merge(connection, tasks.lock(connection, run.id, me.key), me.ti_id)
        faults.point("merge.merge.after-commit")
        if rework is not None:
            self.carry_out(context, rework)
            return None
        return land(self, context, whole=False) if run.landing == "per_task" else None

    def _merge(self, connection: Connection, task: LockedTaskRun, ti_id: str) -> Rework | None:
        """Merge, if there is something to merge; a rework: the target has moved."""
        asker = Asker(task.attempt, ti_id)
        if task.state is TaskRunState.COMPLETED:
            self.log.info("Merged already as %s.", task.merged_commit)
            return None
        if task.state is TaskRunState.VERIFYING and (rework := reworks.take_over(connection, asker)):
            self.log.info("Decided before this step was killed.")
            return rework
        if task.state is not TaskRunState.MERGE_QUEUE:
            fail(f"Task {task.key} is {task.state}, so there is no green verdict to merge by. Clear the group's steps in Airflow.")
        merged = merges.merge_task(connection, settings(), task.attempt)
        if merged.outcome == "moved":
            return reworks.verify_again(connection, asker, "The goal branch has moved; verifying on it again.")
        self.log.info("Merged as %s.", merged.commit)
        return None
