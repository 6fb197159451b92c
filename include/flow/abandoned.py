"""End the goal runs that nothing in Airflow carries any more: their run was deleted, or died with its report, or was never launched.

A goal run is carried by its own DAG run while that is queued or running; before that by the run of submit_goal that took it in.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from pydantic import BaseModel

from include.database.unit_of_work import transaction
from include.errors import Unavailable
from include.flow.api import ask_airflow
from include.goals import intake, report
from include.goals import service as goals
from include.goals.models import UnfinishedRun
from include.tasks.models import GoalRunState

OLD_MINUTES = 5
"""A goal run younger than this may be on its way from its submission to its DAG run."""
_LIVES = ("queued", "running")
_SUBMISSION = (GoalRunState.SUBMITTED, GoalRunState.PLANNING, GoalRunState.AWAITING_APPROVAL)
_WORDS = "its run in Airflow was deleted, or ended without its report"


class _Run(BaseModel):
    """What Airflow tells of a DAG run, as far as it is used here."""

    dag_run_id: str
    conf: dict[str, Any] | None


class _Submissions(BaseModel):
    """Airflow's answer to a question for DAG runs."""

    dag_runs: list[_Run]


def end_abandoned(minutes: int = OLD_MINUTES) -> list[str]:
    """End what is older than so many minutes, has no end, and is carried by no run.

    Returns:
        The ids of the goal runs that were ended.

    Raises:
        Unavailable: Airflow does not answer; without its word nothing is ended.
    """
    with transaction("airflow") as connection:
        runs = goals.unfinished(connection, minutes)
    submissions = _live_submissions() if any(run.state in _SUBMISSION for run in runs) else set()
    alone = [run for run in runs if not _carried(run, submissions)]
    for run in alone:
        _end(run)
    return [run.id for run in alone]


def _carried(run: UnfinishedRun, submissions: set[str]) -> bool:
    if run.state in _SUBMISSION and run.key in submissions:
        return True
    answer = ask_airflow("GET", f"/dags/{quote(run.dag_id)}/dagRuns/{quote(run.run_id, safe='')}")
    if answer.status_code not in (200, 404):
        raise Unavailable(f"Airflow answers {answer.status_code} to a look at the run {run.run_id}.")
    return answer.status_code == 200 and answer.json()["state"] in _LIVES


def _live_submissions() -> set[str]:
    """The keys of the submissions that are at work: the form's, or the run's own id."""
    answer = ask_airflow("GET", "/dags/submit_goal/dagRuns", state=list(_LIVES), limit=100)
    if answer.status_code != 200:
        raise Unavailable(f"Airflow answers {answer.status_code} to a look at the submissions.")
    return {(run.conf or {}).get("key") or run.dag_run_id for run in _Submissions.model_validate(answer.json()).dag_runs}


def _end(run: UnfinishedRun) -> None:
    with transaction("airflow") as connection:
        if run.state in _SUBMISSION:
            intake.settle(connection, run.dag_id, run.run_id)
        else:
            report.close(connection, run.dag_id, run.run_id, _WORDS)
