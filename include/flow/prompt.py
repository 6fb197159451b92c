"""A triggerer that passes an event on at once. Airflow's own looks for events once a second, and its scheduler sleeps meanwhile.

Imported where the triggerer is made (``preload.py``), this takes the place of Airflow 3.3.2's ``TriggerRunnerSupervisor``. If these
internals are gone, events come as late as Airflow brings them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from airflow.jobs import triggerer_job_runner as airflows

from include.flow.poke import poke


class _Events(deque[Any]):
    """The events of a runner that its supervisor does not know of yet."""

    def __init__(self, runner: PromptRunner) -> None:
        super().__init__()
        self._runner = runner
        self._telling: set[asyncio.Task[None]] = set()

    def append(self, entry: Any) -> None:
        """A trigger has fired: tell it, as soon as the trigger lets go of the loop."""
        super().append(entry)
        task = asyncio.get_running_loop().create_task(self._runner.tell())
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)


class PromptRunner(airflows.TriggerRunner):  # type: ignore[misc,unused-ignore]
    """Runs the triggers."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.events = _Events(self)

    async def tell(self) -> None:
        """Send what has happened to the supervisor; what it answers is taken up by the runner's own loop."""
        if self.events:
            await self.sync_state_to_supervisor([])


class PromptSupervisor(airflows.TriggerRunnerSupervisor):  # type: ignore[misc,unused-ignore]
    """Writes what the triggers tell to Airflow's database, and tells the scheduler."""

    @classmethod
    def run_in_process(cls) -> None:
        """Be the runner."""
        PromptRunner().run()  # type: ignore[no-untyped-call]

    def handle_events(self) -> None:
        """As Airflow's; the steps that waited can be scheduled now."""
        some = bool(self.events)
        super().handle_events()  # type: ignore[no-untyped-call]
        if some:
            poke()


airflows.TriggerRunnerSupervisor = PromptSupervisor  # type: ignore[misc]
