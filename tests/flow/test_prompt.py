"""An event of a trigger is told at once: a contract with Airflow 3.3.2's triggerer, shown to hold and shown to be needed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from airflow.jobs import triggerer_job_runner as airflows
from airflow.triggers.base import TriggerEvent

from include.flow import prompt


def listening(runner: type[Any], told: list[Any]) -> Any:
    """A runner whose supervisor this test plays: it notes what it is told, and answers."""

    class Runner(runner):  # type: ignore[misc]
        async def asend(self, message: Any) -> Any:
            told.append(message)
            return airflows.messages.TriggerStateSync(to_create=[], to_cancel=set())

    return Runner()


@pytest.mark.parametrize("runner", [prompt.PromptRunner, airflows.TriggerRunner], ids=["prompt", "airflow's own"])
async def test_an_event_is_told_at_once(runner: type[Any]) -> None:
    told: list[Any] = []
    mine = listening(runner, told)
    for number in (1, 2):
        entry = airflows.TriggerEventEntry(number, TriggerEvent({"n": number}), None)
        mine.events.append(entry)
    await asyncio.sleep(0.05)
    if runner is airflows.TriggerRunner:  # control: it tells at its next look, a second later
        assert told == [] and len(mine.events) == 2
        return
    assert [entry.trigger_id for message in told for entry in message.events] == [1, 2]
    assert not mine.events and not any(message.finished or message.failures for message in told)


def test_the_triggerer_is_made_of_it() -> None:
    assert airflows.TriggerRunnerSupervisor is prompt.PromptSupervisor
    assert "TriggerRunnerSupervisor.start(" in open(airflows.__file__).read()  # by this name it is found
