"""What a person did in Airflow to an attempt, carried into our tables: the one place where a mark, a clear or a kill ends work.

Airflow tells it in several ways (``include/flow/taken.py``, ``marks.py``, the lease step's trigger), some of them late, twice or of an
older attempt. Each way ends here; the first one that is true ends the attempt, all others find it ended.
"""

from __future__ import annotations

from datetime import datetime

from include.database.unit_of_work import Connection
from include.leases import service as leases
from include.tasks import reworks
from include.tasks import service as tasks
from include.tasks.models import LIVE, LockedTaskRun, TaskRunState

ACTIVE = {
    "start": LIVE, "lease": LIVE, "verify": frozenset({TaskRunState.VERIFYING}), "merge": frozenset({TaskRunState.MERGE_QUEUE}),
}  # fmt: skip
"""In which states of its task run a step is the active one. A mark of a step that no process works for ends the attempt only then."""


def end_marked(connection: Connection, task: LockedTaskRun, step: str, epoch: int | None) -> bool:
    """End the attempt whose live step a person marked, or whose run was marked or deleted.

    Args:
        step: the step that was marked.
        epoch: of the attempt that the step worked for; None: it worked for none yet.

    Returns:
        True if something was ended; False: a newer attempt has taken over, or it had ended.
    """
    if epoch is not None and task.epoch != epoch:
        return False
    return tasks.cancel_by_mark(connection, task, f"its step {step} was marked in Airflow, or its run was")


def end_marked_at_rest(connection: Connection, task: LockedTaskRun, step: str, epoch: int) -> bool:
    """End the attempt if a person marked its active step while no process worked for it. Parameters as in ``end_marked``."""
    return task.state in ACTIVE[step] and end_marked(connection, task, step, epoch)


def end_cleared(connection: Connection, task: LockedTaskRun, epoch: int | None, tries: int) -> bool:
    """Revoke what lives of an attempt that a person cleared together with its admit step; a new attempt is on its way.

    It must be certain that a person did: Airflow did not just try admit again, and no step gave the attempt up, which makes the door
    clear it.

    Args:
        epoch: of the attempt that the cleared step worked for.
        tries: how many tries Airflow allows the admit step now.
    """
    if epoch is None or task.epoch != epoch or reworks.given_up_by_a_step(connection, task.attempt):
        return False
    if tasks.cleared_since(connection, task.attempt, tries) is not True:
        return False
    leases.revoke_task(connection, task.id, "its steps were cleared in Airflow")
    return True


def end_unwatched(connection: Connection, task: LockedTaskRun, ti_id: str, epoch: int, left_at: datetime) -> bool:
    """End the attempt of a lease step that a person ended, if its lease still belongs to this task instance.

    Args:
        ti_id: the step's task-instance id.
        epoch: that the step watched.
        left_at: when our own watch left it, by PostgreSQL's clock: whoever has stamped it since has taken it over.

    Returns:
        True if something was ended. A newer epoch, another owner or an ended attempt: nothing happens.
    """
    if task.epoch != epoch or task.state not in LIVE or not leases.is_owned(connection, task.attempt, ti_id, left_at):
        return False
    return tasks.cancel_by_mark(connection, task, "the lease step was marked or cleared in Airflow")
