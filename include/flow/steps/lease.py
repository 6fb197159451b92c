"""lease: lives in the triggerer for as long as the attempt does; its log carries the worker's milestones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any

from airflow.sdk import BaseSensorOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TriggerEvent

from include import faults
from include.database.unit_of_work import persist, pooled_transaction
from include.errors import Unavailable
from include.flow import watch
from include.flow.rework_trigger import ask_until_cleared
from include.flow.steps.base import RETRIES, fail
from include.flow.taken import settle, what_became
from include.flow.told import Told
from include.goals import service as goals
from include.settings import settings
from include.tasks import people, watching
from include.tasks import service as tasks
from include.tasks.watching import Seen, Watcher

TOLD_S = 20.0
"""For how long a kill asks Airflow what became of its step; Airflow gives a kill 30 s."""
MILESTONES = 200
"""Lines that an attempt's step log may carry; the whole log is an artifact."""
REVOKE_PATIENCE_S = 10.0
"""For how long a revoke that a person caused is tried: nobody asks for it a second time."""
_WORDS = {"handed_in": "handed in", "merged": "merged"}


class LeaseTrigger(Told, BaseTrigger):
    """Watches one attempt: stamps it, shows milestones, and ends when our tables say so."""

    def __init__(self, task_key: str, **_: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.task_key = task_key
        self._after = 0
        self._shown = 0
        self._epoch = 0

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Only the key is kept: stored DAGs freeze these arguments, all else is read from PostgreSQL."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"task_key": self.task_key}

    def _ti(self) -> Any:
        """The lease step's task instance, which the triggerer sets."""
        return self.task_instance

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look whenever something has changed, until the attempt is over; a rework asks the door and then waits to be cleared."""
        ti = self._ti()
        while True:
            with watch.here().of(ti.dag_id, ti.run_id, self.task_key, str(ti.id)) as watched:
                seen = await self._until_over(watched)
            if seen.rework is None:
                faults.point("lease.handed-in.after-commit")
                yield TriggerEvent({"outcome": seen.outcome, "words": seen.words})
                return
            await ask_until_cleared(ti.dag_id, ti.run_id, str(seen.rework.id), str(ti.id))

    async def _until_over(self, watched: watch.Watched) -> Seen:
        while True:
            await watched.changed()
            try:
                seen = await watched.look(partial(self._look, watched.watch.calm_s))
            except Unavailable as error:
                self.log.warning("%s Still watching.", error)
                watched.again()
                continue
            self._show(seen)
            if seen.outcome != "working":
                return seen

    def _look(self, calm_s: float) -> Seen:
        ti = self._ti()
        with pooled_transaction("airflow") as connection:
            run = goals.ensure(connection, ti.dag_id, ti.run_id)
            return watching.look(connection, settings(), run.id, self.task_key, Watcher(str(ti.id), self._after, calm_s))

    def _show(self, seen: Seen) -> None:
        if seen.epoch != self._epoch and seen.epoch:
            self._epoch = seen.epoch
            self.log.info("Watching attempt %s.", seen.epoch)
        for event, words in seen.milestones:
            self._after = event
            self._shown += 1
            if self._shown <= MILESTONES:
                self.log.info(words)
        if seen.words:
            self.log.info(seen.words)

    async def on_kill(self) -> None:
        """Revoke this epoch if a person marked the step; Airflow calls this also for a clear, and when another triggerer takes over.

        Still deferred, or cleared alone: another trigger has it. Marked: revoke at once. Cleared with its admit: see ``settle``. If Airflow
        is too busy to say, nothing is revoked: that looks the same for all of these.
        """
        left_at = await watch.here().left_at()
        await asyncio.to_thread(self._killed, left_at)

    def _killed(self, left_at: datetime) -> None:
        ti = self._ti()
        try:
            became = persist(partial(what_became, ti, self.task_key, "lease"), TOLD_S)
            if became == "ended":
                persist(partial(self.revoke, left_at), REVOKE_PATIENCE_S)
        except Unavailable as error:
            self.log.warning("%s What lives is ended by the run's report, the next admit, or after a minute without a watch.", error)
            return
        if became == "done again":
            settle(ti, self.log, self._epoch)

    def revoke(self, left_at: datetime) -> None:
        """Revoke the epoch that was watched here, unless somebody stamped it after ``left_at``."""
        ti = self._ti()
        with pooled_transaction("airflow") as connection:
            task = tasks.lock(connection, goals.ensure(connection, ti.dag_id, ti.run_id).id, self.task_key)
            if people.end_unwatched(connection, task, str(ti.id), self._epoch, left_at):
                self.log.warning("Attempt %s is revoked; the warden ends its sandbox.", self._epoch)


class LeaseStep(Told, BaseSensorOperator):
    """Starts in the triggerer and holds no worker slot.

    Args:
        task_key: key of the plan's task.
    """

    start_from_trigger = True

    def __init__(self, *, task_key: str, **kwargs: Any) -> None:
        super().__init__(**{**RETRIES, **kwargs})
        self.task_key = task_key
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="include.flow.steps.lease.LeaseTrigger",
            next_method="ended",
            trigger_kwargs={"task_key": task_key},
            next_kwargs=None,
            timeout=None,
        )

    def execute(self, context: Any) -> None:  # noqa: ARG002
        """For places without a triggerer's start: defer to the same trigger."""
        self.defer(trigger=LeaseTrigger(task_key=self.task_key), method_name="ended")

    def ended(self, context: Any, event: dict[str, Any] | None = None) -> str:  # noqa: ARG002
        """The attempt is over: handed in or merged, or the whole story of why not."""
        event = event or {}
        if event.get("outcome") not in _WORDS:
            fail(event.get("words") or "the lease ended without a word")
        return _WORDS[event["outcome"]]
