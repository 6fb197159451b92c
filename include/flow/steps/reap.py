"""reap: the step of the DAG reaper. What no run in Airflow carries any more comes to its end."""

from __future__ import annotations

from typing import Any

from include.flow.abandoned import end_abandoned
from include.flow.steps.base import Step


class ReapStep(Step):
    """Ends the abandoned goal runs; returns their ids."""

    def advance(self, context: Any) -> Any:  # noqa: ARG002 - it looks at all goals
        """Look once."""
        ended = end_abandoned()
        for goal_run in ended:
            self.log.warning("Goal run %s was carried by no run in Airflow any more and is ended.", goal_run)
        return ended
