"""Steps for the tests of the flow: they write down that they ran, and decide on rework as a script in the database says.

Everything else is the product's: bundle, builder, executor, door, triggers. A script row (dag_id, step, epoch, how) makes a step of that
epoch decide for rework: ``how`` is ``clear`` (a lease: from the triggerer; a worker's step: asks the door), ``defer`` (falls back to
ReworkTrigger at once), ``decide`` (a lease that only records), ``fail``, ``sleep``, ``wait`` (defer, resume quickly). With ``once`` the row
counts once, with ``verify`` only {verify, merge} are done again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent
from psycopg.rows import dict_row

from include.airflow_api.door import ask_door
from include.airflow_api.models import ReworkAsk
from include.clock import new_id
from include.flow import goal_dag
from include.flow.bundle import PlanBundle
from include.flow.rework_trigger import ReworkTrigger, ask_until_cleared
from include.settings import settings

TABLES = """
CREATE TABLE IF NOT EXISTS probe (id bigserial, dag_id text, run_id text, step text, try int, epoch int, what text, ti_id text,
                                  at timestamptz DEFAULT clock_timestamp());
CREATE TABLE IF NOT EXISTS probe_script (dag_id text, step text, epoch int, how text);
"""


def database() -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(settings().dsn("owner"), row_factory=dict_row, autocommit=True)


def epoch_of(connection: Any, dag_id: str, run_id: str, key: str) -> tuple[str, int]:
    row = connection.execute(
        "SELECT t.id, t.epoch FROM task_runs t JOIN goal_runs g ON g.id = t.goal_run WHERE (g.dag_id, g.run_id, t.key) = (%s, %s, %s)",
        (dag_id, run_id, key),
    ).fetchone()
    return (row["id"], row["epoch"]) if row else ("", 0)


def note(dag_id: str, run_id: str, step: str, try_: int, ti_id: str, what: str = "ran") -> tuple[str, int, str]:
    """Write down that a step runs. Returns task run, epoch and what the script says."""
    with database() as connection:
        task_run, epoch = epoch_of(connection, dag_id, run_id, step.partition(".")[0])
        if step.endswith(".admit") and task_run:
            row = connection.execute("UPDATE task_runs SET epoch = epoch + 1 WHERE id = %s RETURNING epoch", (task_run,)).fetchone()
            epoch = row["epoch"]
        connection.execute(
            "INSERT INTO probe (dag_id, run_id, step, try, epoch, what, ti_id) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (dag_id, run_id, step, try_, epoch, what, ti_id),
        )
        row = connection.execute(
            "SELECT how FROM probe_script WHERE (dag_id, step, epoch) = (%s, %s, %s)", (dag_id, step, epoch)
        ).fetchone()
        if row and " once" in row["how"]:
            connection.execute("DELETE FROM probe_script WHERE (dag_id, step, epoch) = (%s, %s, %s)", (dag_id, step, epoch))
        return task_run, epoch, row["how"] if row else ""


def decide(task_run: str, epoch: int, ti_id: str, steps: list[str]) -> str:
    """Record a rework once for this task instance."""
    with database() as connection:
        row = connection.execute(
            "INSERT INTO reworks (id, task_run, epoch, ti_id, steps, reason, feedback) VALUES (%s, %s, %s, %s, %s, 'probe', '')"
            " ON CONFLICT (task_run, epoch, ti_id) DO UPDATE SET reason = 'probe' RETURNING id",
            (new_id(), task_run, epoch, ti_id, steps),
        ).fetchone()
        return str(row["id"])


ALL = ["admit", "start", "lease", "verify", "merge"]


class ProbeStep(BaseOperator):
    def __init__(self, *, task_key: str = "", **kwargs: Any) -> None:
        kwargs.setdefault("retries", 0)
        super().__init__(**kwargs)
        self.task_key = task_key

    def execute(self, context: Any) -> Any:
        ti = context["ti"]
        task_run, epoch, how = note(ti.dag_id, ti.run_id, ti.task_id, ti.try_number, str(ti.id))
        if how == "fail":
            raise RuntimeError("the script says so")
        if how == "wait":
            self.defer(trigger=Soon(), method_name="resume")
        if how == "sleep":
            time.sleep(3)
        if how.startswith(("clear", "defer")):
            rework = decide(task_run, epoch, str(ti.id), ["verify", "merge"] if how.endswith("verify") else ALL)
            ask = {"dag_id": ti.dag_id, "run_id": ti.run_id, "rework": rework, "ti_id": str(ti.id)}
            if how.startswith("defer") or not ask_door(ReworkAsk(**ask), 2):
                self.defer(trigger=ReworkTrigger(**ask), method_name="resume")
        return None

    def resume(self, context: Any, event: Any = None) -> None:
        ti = context["ti"]
        note(ti.dag_id, ti.run_id, ti.task_id, ti.try_number, str(ti.id), f"resumed {event}")


class OutcomeProbe(ProbeStep):
    """As the product's: red unless our tables say that all is well. Here: unless the script says ``fail`` somewhere."""


class Soon(BaseTrigger):
    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "tests.flow.probe.Soon", {}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        yield TriggerEvent("now")


class LeaseProbeTrigger(BaseTrigger):
    def __init__(self, task_key: str, **_: Any) -> None:
        super().__init__()
        self.task_key = task_key

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return "tests.flow.probe.LeaseProbeTrigger", {"task_key": self.task_key}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        ti = self.task_instance
        task_run, epoch, how = await asyncio.to_thread(note, ti.dag_id, ti.run_id, ti.task_id, ti.try_number, str(ti.id))
        if how == "sleep":
            await asyncio.sleep(3600)
        if how == "decide":
            await asyncio.to_thread(decide, task_run, epoch, str(ti.id), ALL)
            await asyncio.sleep(3600)
        if how == "clear":
            rework = await asyncio.to_thread(decide, task_run, epoch, str(ti.id), ALL)
            await ask_until_cleared(ti.dag_id, ti.run_id, rework, str(ti.id))
        yield TriggerEvent({"done": True})


class LeaseProbe(BaseSensorOperator):
    start_from_trigger = True

    def __init__(self, *, task_key: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task_key = task_key
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="tests.flow.probe.LeaseProbeTrigger",
            next_method="ended",
            trigger_kwargs={"task_key": task_key},
            next_kwargs=None,
            timeout=None,
        )

    def execute(self, context: Any) -> None:
        self.defer(trigger=LeaseProbeTrigger(self.task_key), method_name="ended")

    def ended(self, context: Any, event: Any = None) -> str:
        return "handed in"


class RenderingStep(ProbeStep):
    """The control of 'text is data': a step that does put text into a templated field."""

    template_fields = ("words",)

    def __init__(self, *, words: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.words = words

    def execute(self, context: Any) -> Any:
        super().execute(context)
        ti = context["ti"]
        note(ti.dag_id, ti.run_id, ti.task_id, ti.try_number, str(ti.id), f"rendered {self.words}")


STEPS: dict[str, type] = {name: ProbeStep for name in ("admit", "start", "verify", "merge", "land", "report", "outcome")} | {
    "lease": LeaseProbe
}


def build(document: str) -> Any:
    return goal_dag.build(document, STEPS)


class ProbeBundle(PlanBundle):
    """The product's bundle, whose stubs call the builder with the steps above."""

    builder = "tests.flow.probe"
