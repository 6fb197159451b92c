"""The clients of a run of chaos: each submits a goal, again and again under its key until it is confirmed, and waits for its end."""

from __future__ import annotations

import threading
import time

from include.database.unit_of_work import transaction
from include.drills import person
from include.drills.chaos import store
from include.drills.chaos.models import ClientGoal
from include.drills.chaos.work import PlayedGoal
from include.errors import AirlockError, BadInput, Unavailable
from include.local.control import Say
from include.settings import Settings

REFUSALS = 5
"""A goal that was refused so often is given up: it was not taken in."""
BUDGET_USD, DEADLINE = 100.0, "23h"


class Clients:
    """So many goals under way at once.

    Args:
        goals: in the order of submission.
        at_once: how many.
        begin_s: for so many seconds further goals begin; 0: until all have.
    """

    def __init__(self, settings: Settings, goals: list[PlayedGoal], repository: str, at_once: int, say: Say, begin_s: float = 0) -> None:
        self._settings, self._repository, self._say = settings, repository, say
        self._waiting = list(reversed(goals))
        self._lock = threading.Lock()
        self._rest_at = time.monotonic() + begin_s if begin_s else None
        self.stopped = threading.Event()
        self.asked: list[ClientGoal] = []
        self._threads = [threading.Thread(target=self._work, name=f"client {number}", daemon=True) for number in range(at_once)]
        for thread in self._threads:
            thread.start()

    def are_done(self) -> bool:
        """Tell whether every goal has come to its end."""
        return not any(thread.is_alive() for thread in self._threads)

    def rest(self, patience_s: float) -> None:
        """Wait until no further goal begins; without such a time until all have come to their end, at most so long."""
        end = self._rest_at or time.monotonic() + patience_s
        while not self.are_done() and time.monotonic() < end:
            time.sleep(0.5)

    def join(self, patience_s: float) -> None:
        """Wait for all goals, at most so long; then no further one is waited for."""
        end = time.monotonic() + patience_s
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self.stopped.set()

    def _work(self) -> None:
        while not self.stopped.is_set():
            with self._lock:
                if not self._waiting or (self._rest_at is not None and time.monotonic() > self._rest_at):
                    return
                goal = self._waiting.pop()
            asked = self._submit(goal)
            with self._lock:
                self.asked.append(asked)
            if asked.acknowledged:
                self._wait(goal)

    def _submit(self, goal: PlayedGoal) -> ClientGoal:
        request = person.request(goal=goal.text, repository=self._repository, key=goal.key, landing=goal.landing,
                                 budget_usd=BUDGET_USD, deadline=DEADLINE)  # fmt: skip
        calls, refusals, said = 0, 0, ""
        while not self.stopped.is_set() and refusals < REFUSALS:
            calls += 1
            try:
                run = person.submit(self._settings, request, patience_s=60).run
                self._say(f"goal {goal.number} is {run}" + (f", after {calls} submissions" if calls > 1 else ""))
                return ClientGoal(key=goal.key, tasks=goal.tasks, calls=calls, acknowledged=True)
            except AirlockError as error:
                refusals += isinstance(error, BadInput)
                said = " ".join(str(error).split())[:300]
            self.stopped.wait(2)
        self._say(f"goal {goal.number} was not taken in: {said}")
        return ClientGoal(key=goal.key, tasks=goal.tasks, calls=calls, acknowledged=False, said=said)

    def _wait(self, goal: PlayedGoal) -> None:
        while not self.stopped.wait(1):
            try:
                with transaction("owner") as connection:
                    run = store.run_of_key(connection, goal.key)
            except Unavailable:
                continue
            if run and run.ended_at:
                self._say(f"goal {goal.number} ended {run.state}" + (f": {run.reason[:300]}" if run.reason else ""))
                return
