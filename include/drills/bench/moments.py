"""The moments of a goal run, as our tables and Airflow's have them. Nothing is recorded for a benchmark's sake."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.database import queries
from include.drills.bench.phases import Moment
from include.goals.rules import submission_run
from include.settings import Settings

_SQL = queries.load(__file__)


def of_airflow(settings: Settings, runs: list[str]) -> list[dict[str, Any]]:
    """When runs and their steps began and ended: ``run_id``, ``task_id`` (empty: the run), ``at``, ``kind``."""
    return _ask(settings.dsn("owner", "airflow"), _SQL.airflow_moments, runs=runs)


def of_goal(settings: Settings, goal_run: str) -> list[Moment]:
    """The moments of a goal run that was submitted with a key, in order, from its submission on."""
    ours = _ask(settings.dsn("owner"), _SQL.goal_moments, run=goal_run)
    names = _ask(settings.dsn("owner"), _SQL.goal_names, run=goal_run)[0]
    found = [Moment(row["key"] or "", row["at"], row["kind"], row["detail"] or "") for row in ours if row["at"] is not None]
    for row in of_airflow(settings, [names["run_id"], submission_run(names["key"])]):
        key, _, step = row["task_id"].rpartition(".")
        of_goal = row["run_id"] == names["run_id"]
        if not step and (row["kind"] == "queued") is of_goal:
            continue  # of the submission counts when it was asked for, of the goal when its run began and ended
        if of_goal or row["kind"] in ("starts", "queued"):
            found.append(Moment(key, row["at"], f"{step or 'run'}.{row['kind']}"))
    begun = min(moment.at for moment in found if moment.kind == "run.queued")
    return sorted((moment for moment in found if moment.at >= begun), key=lambda moment: moment.at)


def _ask(dsn: str, statement: str, **values: Any) -> list[dict[str, Any]]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return connection.execute(statement.encode(), values).fetchall()
