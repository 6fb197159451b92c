"""What Airflow's REST API tells us, as far as we read it; and what the door of our plugin answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from include.frozen import Frozen

DoorOutcome = Literal["cleared", "done before", "asker is gone", "stale epoch", "not now"]


class _Told(BaseModel):
    """An answer of Airflow's: it holds more than we read, and may hold more in the next version."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RunTold(_Told):
    """A DAG run: its id, its state, and the form that it was started with."""

    dag_run_id: str
    state: str
    conf: dict[str, Any] | None = None


class RunsTold(_Told):
    """A page of DAG runs."""

    dag_runs: tuple[RunTold, ...] = ()


class StepTold(_Told):
    """A task instance. A clear gives it a new id, and so does each of Airflow's own tries; only a clear raises ``max_tries``."""

    id: str = ""
    task_id: str = ""
    state: str | None = None
    try_number: int = 0
    max_tries: int = 0


class StepsTold(_Told):
    """The task instances of a run."""

    task_instances: tuple[StepTold, ...] = ()


class DagTold(_Told):
    """A DAG. ``bundle_version``: of the bundle that it was last parsed from."""

    bundle_version: str | None = None


class LogError(_Told):
    """An error as a line of a step's log holds it."""

    exc_type: str | None = None
    exc_value: str | None = None


class LogLine(_Told):
    """A line of a step's log."""

    error_detail: tuple[LogError, ...] | None = None


class StepLog(_Told):
    """A page of a step's log; some versions of Airflow put plain text between the lines."""

    content: tuple[LogLine | str, ...] = ()


class Token(_Told):
    """What a login gives."""

    access_token: str


class Refusal(_Told):
    """Why Airflow or the door refused."""

    detail: Any = ""


class Started(Frozen):
    """The answer to a wish for a run. 200: started. 409: there is one of this id. 404: no such DAG yet. 400, 422: the form is broken."""

    status_code: int
    detail: str = ""


class ReworkAsk(Frozen):
    """A recorded rework that the door is to carry out, and the task instance of the step that asks."""

    dag_id: str
    run_id: str
    rework: str = Field(description="Id of the row in reworks.")
    ti_id: str


class DoorAnswer(Frozen):
    """How many steps the door cleared, and why not more."""

    cleared: int
    outcome: DoorOutcome
