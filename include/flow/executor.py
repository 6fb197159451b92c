"""LocalExecutor with a cure (a step is not handed out again before its last process has reported its end), with ears, and with a pulse.

Airflow 3.3.2's LocalExecutor never fills ``running``. When a step that ran, deferred (or asked a person) is resumed quickly, the late
report of its first process is taken for the end of the second, and the scheduler fails the step. A workload whose key is still live
therefore stays in the queue, where ``has_task`` sees it, for 15 s at most.

The scheduler's pause between two looks is spent here, and ends when a step's process reports or somebody pokes (``poke.py``). Airflow's own
pause, which nothing ends, is set to 0. And the executor says in our tables that the scheduler goes round: a late beat means that Airflow
does not keep up, and then the minute without a watch does not count (docs/decisions/0018-a-load-is-no-loss.md).
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from multiprocessing.connection import wait
from time import monotonic
from typing import Any

import psycopg
from airflow.executors.local_executor import LocalExecutor
from airflow.utils.state import TaskInstanceState

from include.database.queries import load
from include.flow import poke
from include.settings import settings

MOST_S = 15.0
IDLE_S = 0.5
"""Between two looks of a scheduler that nothing has called."""
BEAT_S = 0.5
_SQL = load(__file__)
_ENDED = frozenset({TaskInstanceState.SUCCESS, TaskInstanceState.FAILED})


class Pulse:
    """Says in PostgreSQL that the scheduler goes round, at most every ``BEAT_S``. A beat that fails is a late one: the next will do."""

    def __init__(self) -> None:
        self._line: psycopg.Connection[Any] | None = None
        self._at = 0.0

    def beat(self) -> None:
        """Beat, unless it was done just now."""
        if monotonic() - self._at < BEAT_S:
            return
        try:
            if self._line is None:
                self._line = psycopg.connect(
                    settings().dsn("airflow"), autocommit=True, connect_timeout=2, options="-c statement_timeout=2000"
                )
            self._line.execute(_SQL.beat)
        except psycopg.Error:
            if self._line is not None:
                self._line.close()
            self._line = None
        self._at = monotonic()


class HoldingLocalExecutor(LocalExecutor):
    """Holds back a workload while the last process of the same step and try has not reported its end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.live: set[Any] = set()
        self.held: dict[Any, float] = {}
        self.pulse = Pulse()
        self._busy = False  # since the last pause
        self._heard: Any = None

    def start(self) -> None:
        """Airflow's, which makes the queues; we listen beside them."""
        super().start()
        self._heard = poke.listen()

    def heartbeat(self) -> None:
        """Airflow's, once a loop of the scheduler."""
        super().heartbeat()
        self.pulse.beat()

    def sync(self) -> None:
        """Take in what processes reported. After a look of the scheduler that had nothing to do, wait first until there is something."""
        super().sync()
        if not self._busy:
            ears = [self.result_queue._reader, *([self._heard] if self._heard else [])]  # type: ignore[attr-defined]
            wait(ears, IDLE_S)
            super().sync()
        if self._heard:
            poke.hear(self._heard)
        self._busy = False

    def _process_workloads(self, workload_list: Sequence[Any]) -> None:
        self._busy = True
        self.live.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)  # type: ignore[no-untyped-call]

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Airflow's, which also tells us that a process ended."""
        super().change_state(key, state, info, remove_running)
        self._busy = True
        if state in _ENDED:
            self.live.discard(key)

    def trigger_tasks(self, open_slots: int) -> None:
        """Hand out what is queued, but for what is held."""
        held = {key: workload for key, workload in self.queued_tasks.items() if self._hold(key)}
        for key in held:
            del self.queued_tasks[key]
        try:
            super().trigger_tasks(open_slots)
        finally:
            self.queued_tasks.update(held)

    def _hold(self, key: Any) -> bool:
        if key not in self.live:
            self.held.pop(key, None)
            return False
        if key not in self.held:
            self.log.info("Holding %s: its last process has not reported its end", key)
        since = self.held.setdefault(key, monotonic())
        if monotonic() - since <= MOST_S:
            return True
        self.log.warning("No end of the last process of %s for %g s: handing it out", key, MOST_S)
        self.held.pop(key)
        return False

    def _spawn_workers_with_gc_freeze(self, spawn_number: int) -> None:
        """Fork the workers, and leave frozen what is: Airflow unfreezes, and then the next collection would copy all that is shared."""
        gc.freeze()
        for _ in range(spawn_number):
            self._spawn_worker()  # type: ignore[no-untyped-call]
