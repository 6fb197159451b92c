"""Runs when Airflow stops a live step, and says only "stop". If a person marked, cleared or deleted it, the attempt is ended in our tables.

If the step only moved to another process or is tried again by Airflow, nothing is changed.

Marked (or its run marked, or deleted): the attempt is over, its sandboxes are revoked, the task is CANCELLED, whatever the colour of the
mark. Cleared: the step runs again and finds what is stored; cleared with its admit, a new attempt is on its way, and what lives of this one
is revoked. Neither (another triggerer took over, heartbeats were lost, a busy Airflow tries a step again): nothing. What is not certain is
left alone: then, as when a process dies at that moment, the run's report, the next admit, or the minute without a watch ends the same.
"""

from __future__ import annotations

import os
from typing import Any, Literal, NoReturn
from urllib.parse import quote

from pydantic import BaseModel

from include.database.unit_of_work import persist, transaction
from include.errors import AirlockError, Unavailable
from include.flow.api import ask_airflow
from include.goals import service as goals
from include.tasks import people
from include.tasks import service as tasks

ASK_S = 2.0
PATIENCE_S = 2.5
"""Five seconds after it asked a process to stop, Airflow kills it: the last try begins before this and asks at most twice."""
EXIT = 143  # as by SIGTERM
_GOES_ON = ("running", "deferred", "queued", "scheduled", "restarting", "up_for_retry", "up_for_reschedule", "awaiting_input", None)


class _Instance(BaseModel):
    """What Airflow tells of a task instance, as far as it is used here."""

    id: str
    state: str | None
    max_tries: int


class Stopped(BaseException):
    """Airflow asks this process to stop. No error: nothing on the way may take it for one and go on."""


def stop() -> NoReturn:
    """Leave whatever a step is doing, for its ``on_kill``, which runs inside a signal handler; its transaction is rolled back.

    Raises:
        Stopped: always.
    """
    raise Stopped


def leave(ti: Any, log: Any, epoch: int | None) -> NoReturn:
    """End a stopped step's process, without a report to Airflow, which has decided already."""
    settle(ti, log, epoch)
    os._exit(EXIT)


def settle(ti: Any, log: Any, epoch: int | None) -> None:
    """End in our tables what a person ended in Airflow.

    Args:
        ti: the step's task instance: dag_id, run_id, task_id and id.
        log: the step's.
        epoch: of the attempt that the step works for; a newer one is left alone. None: it worked for none yet.
    """
    key, _, step = ti.task_id.rpartition(".")
    if not key:
        return
    try:
        if persist(lambda: _settle(ti, key, step, epoch), PATIENCE_S):
            log.warning("Attempt %s of %s is over: the step was marked or cleared in Airflow. The warden ends its sandboxes.", epoch, key)
    except AirlockError as error:
        log.warning("%s What lives is ended by the run's report, the next admit, or after a minute without a watch.", error)


def _settle(ti: Any, key: str, step: str, epoch: int | None) -> bool:
    """One try; True if something was ended."""
    became = what_became(ti, key, step)
    if became == "goes on":
        return False
    tries = _tries_of_admit(ti, key) if became == "done again" else 0
    with transaction("airflow") as connection:
        task = tasks.lock(connection, goals.ensure(connection, ti.dag_id, ti.run_id).id, key)
        if became == "ended":
            return people.end_marked(connection, task, step, epoch)
        return people.end_cleared(connection, task, epoch, tries)


def what_became(ti: Any, key: str, step: str) -> Literal["ended", "done again", "goes on"]:
    """Ask Airflow what became of a step. A clear gives a step a new id; so does each of Airflow's own tries.

    Raises:
        Unavailable: Airflow does not answer.
    """
    now = _look(ti, ti.task_id)
    if now is None:
        return "ended"
    if now.id == str(ti.id):
        return "goes on" if now.state in _GOES_ON else "ended"
    admit = _look(ti, f"{key}.admit") if step != "admit" else None
    return "done again" if admit is not None and admit.state in _GOES_ON else "goes on"


def _tries_of_admit(ti: Any, key: str) -> int:
    admit = _look(ti, f"{key}.admit")
    return admit.max_tries if admit is not None else 0


def _look(ti: Any, task_id: str) -> _Instance | None:
    path = f"/dags/{quote(ti.dag_id)}/dagRuns/{quote(ti.run_id, safe='')}/taskInstances/{quote(task_id)}"
    answer = ask_airflow("GET", path, ASK_S)
    if answer.status_code not in (200, 404):
        raise Unavailable(f"Airflow answers {answer.status_code} to a look at {task_id}.")
    return _Instance.model_validate(answer.json()) if answer.status_code == 200 else None
