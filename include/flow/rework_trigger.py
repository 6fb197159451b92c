"""Ask the door from the triggerer, for a step whose own ask was not answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from include.airflow_api.door import ask_door_async
from include.airflow_api.models import ReworkAsk
from include.flow.told import Told


async def ask_until_cleared(dag_id: str, run_id: str, rework: str, ti_id: str) -> None:
    """Ask until the door answers; when the steps were cleared, sleep until Airflow takes this trigger away.

    A trigger that has decided calls this and yields nothing: an event would set its step's state beside the clear.

    Args:
        dag_id: of the goal.
        run_id: Airflow's.
        rework: id of the row in ``reworks``.
        ti_id: the asking step's task-instance id.

    Returns:
        Only when the decision is stale (the task run is at another epoch): the step must look afresh.
    """
    answer = await ask_door_async(ReworkAsk(dag_id=dag_id, run_id=run_id, rework=rework, ti_id=ti_id))
    while answer.outcome != "stale epoch":
        await asyncio.sleep(3600)


class ReworkTrigger(Told, BaseTrigger):
    """Fires only when the decision is stale; otherwise the clear ends the step that waits on it."""

    def __init__(self, dag_id: str, run_id: str, rework: str, ti_id: str, **_later: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ask = {"dag_id": dag_id, "run_id": run_id, "rework": rework, "ti_id": ti_id}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where to find this class, and its arguments."""
        return "include.flow.rework_trigger.ReworkTrigger", dict(self.ask)

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """See ``ask_until_cleared``."""
        self.log.info("Asking for the rework that was decided (%s)", self.ask["rework"])
        await ask_until_cleared(**self.ask)
        yield TriggerEvent({"stale": True})
