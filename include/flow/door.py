"""The one door of rework: clear the steps of a task's group in a running goal run, exactly once, fenced by task-instance id and epoch.

The step that decides has stored a row in ``reworks``; the door does only what that row says. Our database and Airflow's are two
transactions: ours is open first and locks the record and the task run's epoch, Airflow's is committed inside it, then the record is
marked. If this process is killed between the two commits, the next ask finds that the asker's task-instance id is gone (a clear gives a
new one), and only marks.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from uuid import UUID

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from fastapi import APIRouter, Depends, Header, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.orm import Session

from include import faults
from include.airflow_api.models import DoorOutcome
from include.database.unit_of_work import transaction
from include.flow.poke import poke
from include.tasks import reworks
from include.tasks.models import STEPS
from include.tasks.reworks import LockedRework

ALIVE = (TaskInstanceState.RUNNING, TaskInstanceState.DEFERRED)


class Ask(BaseModel):
    """Which recorded decision to carry out, and who asks."""

    model_config = ConfigDict(extra="forbid")

    rework: UUID
    run_id: str
    ti_id: UUID


class Cleared(NamedTuple):
    """How many steps were cleared, and why not more."""

    cleared: int
    outcome: DoorOutcome


def requires_header(authorization: Annotated[str, Header()] = "") -> None:
    """A browser's cookie alone opens nothing: no other site can make a person's browser knock here."""
    if not authorization.lower().startswith("bearer "):
        raise HTTPException(401, "Send the token in the header Authorization: Bearer …; POST /auth/token gives one.")


guard = [Depends(requires_header), Depends(requires_access_dag(method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE))]
router = APIRouter()


@router.post("/dags/{dag_id}/rework", dependencies=guard)
def rework(dag_id: str, ask: Ask) -> dict[str, Any]:
    """Clear the steps that the recorded decision names.

    Returns:
        ``{"cleared": n, "outcome": …}``; n is 0 for every ask but one.

    Raises:
        HTTPException: 404 no such decision of this run; 403 another step's decision; 409 not now, ask again.
    """
    answer = carry_out(dag_id, ask)
    if answer.outcome == "not now":
        raise HTTPException(409, "The run is not running or the asking step is between two states. Ask again in 0.5 s.")
    return answer._asdict()


def carry_out(dag_id: str, ask: Ask) -> Cleared:
    """As ``rework``: our transaction around Airflow's."""
    with transaction("airflow") as connection:
        record = reworks.lock_rework(connection, ask.rework)
        if not record or (record.dag_id, record.run_id) != (dag_id, ask.run_id):
            raise HTTPException(404, f"Run {ask.run_id} of {dag_id} has no decision {ask.rework} to work again.")
        if record.ti_id != str(ask.ti_id):
            raise HTTPException(403, f"Decision {ask.rework} was made by another task instance.")
        if record.cleared_at:
            return Cleared(0, "done before")
        if record.epoch != record.epoch_now:
            return Cleared(0, "stale epoch")
        faults.point("door.clear.before")
        with create_session(scoped=False) as session:
            answer = clear(session, dag_id, ask, record)
        faults.point("door.clear.after")
        if answer.outcome in ("cleared", "asker is gone"):
            reworks.mark_cleared(connection, record)
            poke()  # what was cleared can be scheduled now
        return answer


def clear(session: Session, dag_id: str, ask: Ask, record: LockedRework) -> Cleared:
    """Clear within Airflow's transaction, which the caller commits.

    Args:
        session: Airflow's.
        dag_id: of the goal.
        ask: who asks.
        record: a row of the query ``rework``.
    """
    run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == ask.run_id).with_for_update())
    if run is None:
        return Cleared(0, "asker is gone")
    group = {f"{record.key}.{step}": step for step in STEPS}
    everyone = session.scalars(
        select(TaskInstance).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == ask.run_id, TaskInstance.task_id.in_(group))
    ).all()
    asker = next((each for each in everyone if each.id == ask.ti_id), None)
    if asker is None:
        return Cleared(0, "asker is gone")
    if run.state != DagRunState.RUNNING or asker.state not in ALIVE:
        return Cleared(0, "not now")
    # A step without a state has not run: clearing it would write a try that never was into its history.
    wanted = [each for each in everyone if group[each.task_id] in record.steps and each.state is not None]
    clear_task_instances(wanted, session, DagRunState.QUEUED)
    return Cleared(len(wanted), "cleared")
