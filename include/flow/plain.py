"""A goal's graph without the goal: the same groups, steps and dependencies, of tasks that do nothing (``./airlock bench goal``)."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, BaseOperator

from include.flow import goal_dag
from include.tasks.models import STEPS


class PlainStep(BaseOperator):
    """Does nothing, as a step of Airflow's own."""

    def __init__(self, *, task_key: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task_key = task_key

    def execute(self, context: Any) -> None:
        """Nothing."""


def build(document: str) -> DAG:
    """Make the DAG of one goal out of plain steps.

    Args:
        document: as ``goal_dag.build`` takes it.
    """
    return goal_dag.build(document, dict.fromkeys((*STEPS, *goal_dag.ENDS), PlainStep))
