"""What steps may ask of this room with a transaction of theirs."""

from __future__ import annotations

from include.database.unit_of_work import Connection
from include.sandbox import store
from include.sandbox.models import ToStart


def sandbox_to_start(connection: Connection, dag_id: str, run_id: str, key: str) -> ToStart | None:
    """Find the sandbox of the current attempt of a task, if its work lease is live.

    Args:
        dag_id: Airflow's DAG of the goal.
        run_id: Airflow's run of it.
        key: of the plan's task.

    Returns:
        None: there is nothing to start.
    """
    return store.sandbox_to_start(connection, dag_id, run_id, key)
