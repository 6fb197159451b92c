"""Runs in Airflow's API server when a person marks a step: ends the attempt at once, also while no process works for the step.

A step that waits to be run, or whose trigger is not there yet (for a second or two, or until a triggerer is up again), has nobody to whom
Airflow could say "stop" (`taken.py`). Without this its sandbox would live on for a minute, or until its work is done.
"""

from __future__ import annotations

import logging
import time
from typing import NamedTuple

from include.database.unit_of_work import persist, transaction
from include.errors import AirlockError, NotFound
from include.flow.taken import what_became
from include.goals import service as goals
from include.tasks import people
from include.tasks import service as tasks

PATIENCE_S = 5.0
_AGAIN_S = 0.1
log = logging.getLogger("airlock.marks")


class Marked(NamedTuple):
    """A task instance, as it was when it was marked."""

    dag_id: str
    run_id: str
    task_id: str
    id: str


def end_soon(ti: Marked) -> None:
    """End the attempt as soon as the mark is committed; if that never happens, or the step is another one, do nothing."""
    key, _, step = ti.task_id.rpartition(".")
    if not key or step not in people.ACTIVE:
        return
    end = time.monotonic() + PATIENCE_S
    try:
        epoch = persist(lambda: _epoch(ti, key), PATIENCE_S)
        while persist(lambda: what_became(ti, key, step), PATIENCE_S) != "ended":
            if time.monotonic() > end:
                return
            time.sleep(_AGAIN_S)
        if persist(lambda: _end(ti, key, step, epoch), PATIENCE_S):
            log.warning("The attempt of %s in %s is over: its step %s was marked in Airflow.", key, ti.run_id, step)
    except NotFound:
        return  # another's DAG
    except AirlockError as error:
        log.warning("%s The attempt of %s in %s ends when its steps are told, or after a minute without a watch.", error, key, ti.run_id)


def _epoch(ti: Marked, key: str) -> int:
    with transaction("airflow") as connection:
        return tasks.lock(connection, goals.ensure(connection, ti.dag_id, ti.run_id).id, key).epoch


def _end(ti: Marked, key: str, step: str, epoch: int) -> bool:
    with transaction("airflow") as connection:
        task = tasks.lock(connection, goals.ensure(connection, ti.dag_id, ti.run_id).id, key)
        return people.end_marked_at_rest(connection, task, step, epoch)
