"""A live step is taken from its process: Airflow says only "stop". What a person ended is ended in our tables; what goes on is left alone.

Marked (or its run marked, or deleted): the attempt is over, its sandboxes are revoked, the task is CANCELLED, whatever the colour of the
mark. Cleared: the step runs again and finds what is stored. Neither (another triggerer took over, heartbeats were lost): nothing. This may
be missed, if a process dies at that moment: then the run's report, the next admit, or the minute without a watch ends the same.
"""

from __future__ import annotations

import os
from typing import Any, Literal, NoReturn
from urllib.parse import quote

from include.database.unit_of_work import transaction
from include.errors import AirlockError, Unavailable
from include.flow.api import ask_airflow
from include.goals import service as goals
from include.tasks import service as tasks

ASK_S = 2.0
"""Five seconds after it asked a process to stop, Airflow kills it."""
EXIT = 143  # as by SIGTERM
_GOES_ON = ("running", "deferred", "queued", "scheduled", "restarting", "up_for_retry", "up_for_reschedule", "awaiting_input", None)


class Stopped(BaseException):
    """Airflow asks this process to stop. No error: nothing on the way may take it for one and go on."""


def stop() -> NoReturn:
    """For a step's ``on_kill``, which runs inside a signal handler: leave whatever is being done, its transaction is rolled back.

    Raises:
        Stopped: always.
    """
    raise Stopped


def leave(ti: Any, log: Any) -> NoReturn:
    """The end of a stopped step's process, without a report to Airflow, which has decided already."""
    settle(ti, log)
    os._exit(EXIT)


def settle(ti: Any, log: Any) -> None:
    """End in our tables what a person ended in Airflow.

    Args:
        ti: the step's task instance: dag_id, run_id, task_id and id.
        log: the step's.
    """
    key, _, step = ti.task_id.rpartition(".")
    try:
        if not key or became(ti.dag_id, ti.run_id, ti.task_id, str(ti.id)) != "ended":
            return
        reason = f"its step {step} was marked in Airflow, or its run was"
        with transaction("airflow") as connection:
            run = goals.run_of(connection, ti.dag_id, ti.run_id, lock=False)
            row = tasks.lock(connection, run["id"], key)
            tasks.cancel(connection, row["id"], row["epoch"], reason)
        log.warning("Task %s is over: %s. The warden ends its sandboxes.", key, reason)
    except AirlockError as error:
        log.warning("%s What lives is ended by the run's report, the next admit, or after a minute without a watch.", error)


def became(dag_id: str, run_id: str, task_id: str, ti_id: str) -> Literal["ended", "cleared", "goes on"]:
    """What became of a step, by Airflow's own tables. A clear gives a step a new id.

    Raises:
        Unavailable: Airflow does not answer.
    """
    path = f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}/taskInstances/{quote(task_id)}"
    answer = ask_airflow("GET", path, ASK_S)
    if answer.status_code == 404:
        return "ended"
    if answer.status_code != 200:
        raise Unavailable(f"Airflow answers {answer.status_code} to a look at {task_id}.")
    now = answer.json()
    if now["id"] != ti_id:
        return "cleared"
    return "goes on" if now["state"] in _GOES_ON else "ended"
