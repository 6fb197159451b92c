"""The moments of a goal run, as our tables and Airflow's have them. Nothing is recorded for a benchmark's sake."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from include.database import queries, rows
from include.drills import person
from include.drills.bench.phases import Moment
from include.frozen import Frozen
from include.settings import Settings

_SQL = queries.load(__file__)
M = TypeVar("M", bound=Frozen)


class StepMoment(Frozen):
    """When a run of Airflow or one of its steps (``task_id``; empty: the run) was queued, starts or ends."""

    run_id: str
    task_id: str
    at: datetime
    kind: str


class StoredMoment(Frozen):
    """A moment as our tables have it; without ``key`` it is the goal's own, without ``at`` it has not come."""

    key: str | None
    at: datetime | None
    kind: str
    detail: str | None


class Names(Frozen):
    """What Airflow calls a goal run, and the key that it was submitted with."""

    run_id: str
    key: str


def of_airflow(settings: Settings, runs: list[str]) -> list[StepMoment]:
    """Read when runs of Airflow and their steps began and ended."""
    return _ask(settings.dsn("owner", "airflow"), StepMoment, _SQL.airflow_moments, runs=runs)


def of_goal(settings: Settings, goal_run: str) -> list[Moment]:
    """Read the moments of a goal run that was submitted with a key, in order, from its submission on."""
    ours = _ask(settings.dsn("owner"), StoredMoment, _SQL.goal_moments, run=goal_run)
    names = _ask(settings.dsn("owner"), Names, _SQL.goal_names, run=goal_run)[0]
    found = [Moment(each.key or "", each.at, each.kind, each.detail or "") for each in ours if each.at is not None]
    for each in of_airflow(settings, [names.run_id, person.dag_run_id(names.key)]):
        key, _, step = each.task_id.rpartition(".")
        of_goal = each.run_id == names.run_id
        if not step and (each.kind == "queued") is of_goal:
            continue  # of the submission counts when it was asked for, of the goal when its run began and ended
        if of_goal or each.kind in ("starts", "queued"):
            found.append(Moment(key, each.at, f"{step or 'run'}.{each.kind}"))
    begun = min(moment.at for moment in found if moment.kind == "run.queued")
    return sorted((moment for moment in found if moment.at >= begun), key=lambda moment: moment.at)


def _ask(dsn: str, model: type[M], statement: str, **values: Any) -> list[M]:
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        return rows.every(connection, model, statement, **values)
