"""Create the run of a goal from inside a step. A step has no metadata database: the request goes through its supervisor."""

from __future__ import annotations

import time
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ErrorResponse, TriggerDagRun

from include.airflow_api.client import STEP_S, Airflow
from include.errors import Unavailable
from include.settings import settings

PAUSE_S = 0.25


def trigger_goal_run(
    dag_id: str, run_id: str, conf: dict[str, Any] | None = None, *, plan: int = 0, timeout_s: float = 60.0, reset: bool = False
) -> bool:
    """Ask for a run until Airflow knows the goal's DAG as its plan says it, about a second after that was stored. Idempotent.

    Args:
        dag_id: of the goal.
        run_id: Airflow's id of the run.
        conf: of the run.
        plan: number of the plan (``plans.seq``) that the run is to follow; an older version of the DAG is not started.
        timeout_s: seconds to wait for the DAG.
        reset: when the run exists already, clear it, so that it runs again.

    Returns:
        True if this call created (or reset) the run, False if it was there.

    Raises:
        Unavailable: the DAG did not appear: the plan is not stored, or its file has an import error.
    """
    end = time.monotonic() + timeout_s
    while True:
        try:
            if plan:
                _require_parsed(dag_id, plan)
            answer = task_runner.SUPERVISOR_COMMS.send(TriggerDagRun(dag_id=dag_id, run_id=run_id, conf=conf or {}, reset_dag_run=reset))
            return not (isinstance(answer, ErrorResponse) and answer.error == ErrorType.DAGRUN_ALREADY_EXISTS)
        except (AirflowRuntimeError, Unavailable) as error:
            if not _not_yet(error) or time.monotonic() > end:
                raise Unavailable(f"Airflow did not create run {run_id} of {dag_id}: {error}. Look at the DAG's import errors.") from error
        time.sleep(PAUSE_S)


def _require_parsed(dag_id: str, plan: int) -> None:
    """Airflow tells which version of the plan bundle a DAG was last parsed from; the version begins with the newest plan's number."""
    with Airflow(settings(), STEP_S) as airflow:
        known = airflow.dag(dag_id)
    version = (known.bundle_version or "") if known else ""
    if int(version.partition(".")[0] or 0) < plan:
        raise Unavailable(f"the DAG processor has not come to plan {plan} yet (it is at {version or 'none'})")


def _not_yet(error: AirflowRuntimeError | Unavailable) -> bool:
    """True when the DAG is not known yet (404), or the API server is away for a moment."""
    if isinstance(error, Unavailable):
        return True
    detail = getattr(error.error, "detail", None) or {}
    return error.error.error == ErrorType.API_SERVER_ERROR and detail.get("status_code", 503) in (404, 500, 502, 503, 504)
