"""reaper: every five minutes, end the goal runs that nothing in Airflow carries any more."""

from __future__ import annotations

from airflow.sdk import DAG

from include.flow.steps.reap import ReapStep

with DAG(
    "reaper",
    dag_display_name="End abandoned goals",
    description="Ends goal runs whose run in Airflow was deleted or died, and goals that were never launched.",
    schedule="*/5 * * * *",
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    tags=["airlock"],
    default_args={"owner": "airlock"},
):
    ReapStep(task_id="reap", task_display_name="Reap")
