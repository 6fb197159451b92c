"""Ask the door (``include/flow/door.py``, in Airflow's API server) to carry out a rework that a step has recorded."""

from __future__ import annotations

import asyncio
import contextlib
import time

import httpx

from include.airflow_api.client import STEP_S, Airflow, AsyncAirflow
from include.airflow_api.models import DoorAnswer, Refusal, ReworkAsk
from include.errors import Refused, Unavailable
from include.settings import settings

PAUSE_S = 0.5  # between two asks


def ask_door(ask: ReworkAsk, timeout: float) -> bool:
    """Ask the door to carry out a recorded rework, every 0.5 s until it has.

    Args:
        ask: which rework, and who asks.
        timeout: seconds until giving up.

    Returns:
        True when it is carried out: the step must return at once. False when the door did not answer in time or the decision is stale:
        defer to ``ReworkTrigger``, which goes on asking, or wakes the step to look afresh.

    Raises:
        Refused: another step made this decision, or the request is malformed.
    """
    end = time.monotonic() + timeout
    while (left := end - time.monotonic()) > 0:
        # Whatever is wrong with the API server, the next ask may find it well.
        with contextlib.suppress(Unavailable, ValueError), Airflow(settings(), min(left, STEP_S)) as airflow:
            if (answer := _read(airflow.ask("POST", _path(ask), _body(ask)))) is not None:
                return answer.outcome != "stale epoch"
        time.sleep(max(0.0, min(PAUSE_S, end - time.monotonic())))
    return False


async def ask_door_async(ask: ReworkAsk) -> DoorAnswer:
    """As ``ask_door``, for triggers: goes on asking for ever."""
    async with AsyncAirflow(settings()) as airflow:
        while True:
            with contextlib.suppress(Unavailable, ValueError):
                if (answer := _read(await airflow.ask("POST", _path(ask), _body(ask)))) is not None:
                    return answer
            await asyncio.sleep(PAUSE_S)


def _path(ask: ReworkAsk) -> str:
    return f"/airlock/dags/{ask.dag_id}/rework"


def _body(ask: ReworkAsk) -> dict[str, str]:
    return ask.model_dump(include={"rework", "run_id", "ti_id"})


def _read(response: httpx.Response) -> DoorAnswer | None:
    """Read the door's answer; None: asking again may help (404 too: while the API server starts or its plugin is missing)."""
    if response.status_code == 200:
        return DoorAnswer.model_validate_json(response.content)
    if response.status_code in (403, 422) and (problem := Refusal.model_validate_json(response.content)).detail:
        raise Refused(f"The door refused: {problem.detail}")
    return None
