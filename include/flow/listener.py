"""Airflow's listener: what people mark goes to `marks.py`. Every Airflow component loads it with the plugin, so it loads nothing else."""

from __future__ import annotations

from threading import Thread
from typing import Any

from airflow.listeners import hookimpl


@hookimpl
def on_task_instance_success(previous_state: Any, task_instance: Any) -> None:
    """Airflow's hook. A step that ended by itself comes with its previous state, a mark comes with none."""
    if previous_state is None:
        _hear(task_instance)


@hookimpl
def on_task_instance_failed(previous_state: Any, task_instance: Any) -> None:
    """As ``on_task_instance_success``."""
    if previous_state is None:
        _hear(task_instance)


def _hear(ti: Any) -> None:
    """Beside Airflow's request: its transaction is still open, and must not wait for ours."""
    if "." not in ti.task_id:
        return
    from include.flow.marks import Marked, end_soon

    Thread(target=end_soon, args=(Marked(ti.dag_id, ti.run_id, ti.task_id, str(ti.id)),), name="mark", daemon=True).start()
