"""merge: only compares and swaps. The goal branch moves if the verdict is green for exactly that tree."""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.unit_of_work import transaction
from include.errors import StaleEpoch
from include.flow.landing import land
from include.flow.steps.base import Step, fail
from include.goals import service as goals
from include.merge import service as merges
from include.settings import settings
from include.tasks import service as tasks
from include.tasks.models import Rework, TaskRunState


class MergeStep(Step):
    """Merges a task once; a target that has moved asks for {verify, merge} again, under the same epoch."""

    def advance(self, context: Any) -> Any:
        """Merge, or recognise the merge that was made before."""
        ti = context["ti"]
        rework: Rework | None = None
        with transaction("airflow") as connection:
            run = goals.run_of(connection, ti.dag_id, context["run_id"])
            row = tasks.lock(connection, run["id"], self.task_key)
            if row["state"] == TaskRunState.COMPLETED:
                self.log.info("Merged already as %s.", row["merged_commit"])
            elif row["state"] == TaskRunState.VERIFYING and (rework := tasks.undone(connection, row["id"], row["epoch"], str(ti.id))):
                self.log.info("Decided before this step was killed.")
            elif row["state"] != TaskRunState.MERGE_QUEUE:
                fail(
                    f"Task {self.task_key} is {row['state']}, so there is no green verdict to merge by. Clear the group's steps in Airflow."
                )
            else:
                try:
                    merged = merges.merge_task(connection, settings(), row["id"], row["epoch"])
                except StaleEpoch as error:
                    self.log.warning("%s", error)
                    return None
                if merged.outcome == "moved":
                    rework = tasks.verify_again(
                        connection, row["id"], row["epoch"], str(ti.id), "The goal branch has moved; verifying on it again."
                    )
                else:
                    self.log.info("Merged as %s.", merged.commit)
        faults.point("merge.merge.after-commit")
        if rework is not None:
            self.carry_out(context, rework)
            return None
        return land(self, context, whole=False) if run["landing"] == "per_task" else None
