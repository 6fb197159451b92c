"""report: runs whatever happened; revokes what still lives, settles every state, and writes the summary."""

from __future__ import annotations

from typing import Any

from include.database.unit_of_work import transaction
from include.flow.steps.base import Step
from include.goals import report


class ReportStep(Step):
    """A teardown: nothing of the goal run lives after it."""

    def advance(self, context: Any) -> Any:
        """Settle and tell."""
        me = self.me(context)
        with transaction("airflow") as connection:
            told = report.close(connection, me.dag_id, me.run_id)
        for line in told.splitlines():
            self.log.info(line)
        return told
