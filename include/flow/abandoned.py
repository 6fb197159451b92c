"""End the goal runs that nothing in Airflow carries any more: their run was deleted, or died with its report, or was never launched.

A goal run is carried by its own DAG run while that is queued or running; before that by the run of submit_goal that took it in.
"""

from __future__ import annotations

from typing import Any

from include.airflow_api.client import STEP_S, Airflow
from include.database.unit_of_work import transaction
from include.goals import intake, report
from include.goals import service as goals
from include.settings import settings
from include.tasks.models import GoalRunState

OLD_MINUTES = 5
"""A goal run younger than this may be on its way from its submission to its DAG run."""
_LIVES = ("queued", "running")
_SUBMISSION = (GoalRunState.SUBMITTED, GoalRunState.PLANNING, GoalRunState.AWAITING_APPROVAL)
_WORDS = "its run in Airflow was deleted, or ended without its report"


def end_abandoned(minutes: int = OLD_MINUTES) -> list[str]:
    """End what is older than so many minutes, has no end, and is carried by no run.

    Returns:
        The ids of the goal runs that were ended.

    Raises:
        Unavailable: Airflow does not answer; without its word nothing is ended.
    """
    with transaction("airflow") as connection:
        rows = goals.unfinished(connection, minutes)
    submissions = _live_submissions() if any(row["state"] in _SUBMISSION for row in rows) else set()
    alone = [row for row in rows if not _carried(row, submissions)]
    for row in alone:
        _end(row)
    return [row["id"] for row in alone]


def _carried(row: dict[str, Any], submissions: set[str]) -> bool:
    if row["state"] in _SUBMISSION and row["key"] in submissions:
        return True
    with Airflow(settings(), STEP_S) as airflow:
        run = airflow.run(row["dag_id"], row["run_id"])
    return run is not None and run.state in _LIVES


def _live_submissions() -> set[str]:
    """The keys of the submissions that are at work: the form's, or the run's own id."""
    with Airflow(settings(), STEP_S) as airflow:
        return {(run.conf or {}).get("key") or run.dag_run_id for run in airflow.runs("submit_goal", _LIVES)}


def _end(row: dict[str, Any]) -> None:
    with transaction("airflow") as connection:
        if row["state"] in _SUBMISSION:
            intake.settle(connection, row["dag_id"], row["run_id"])
        else:
            report.close(connection, settings(), row["dag_id"], row["run_id"], _WORDS)
