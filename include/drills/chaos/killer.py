"""Who kills: one target after another from shuffled decks, at random times, while goals are under way."""

from __future__ import annotations

import random
import signal
import threading
import time

from include.agents import budgets
from include.database.unit_of_work import transaction
from include.drills.chaos import store, targets
from include.drills.chaos.client import Clients
from include.drills.chaos.models import Fault, Options
from include.drills.chaos.watch import Outages
from include.errors import AirlockError, Unavailable
from include.faults import POINTS
from include.local import control
from include.local.control import Say
from include.settings import Settings

PAUSE_S = (2.0, 8.0)
STOP_S = 40.0
STOP_EVERY = 8
UP_S = 240.0
"""For so long nothing may move while it comes up."""
PATIENCE_S = 45.0
"""A kill waits for its share of merges, so that kills meet live work to the end; but no longer than this."""
BUDGET_MICRO = 100_000_000_000


class Killer:
    """Plays the decks of one run."""

    def __init__(self, settings: Settings, options: Options, clients: Clients, tasks: int, say: Say) -> None:
        self._settings, self._options, self._clients, self._tasks, self._say = settings, options, clients, tasks, say
        self._chance = random.Random(f"kills {options.seed}")
        self.watch = Outages(settings)
        self.manual: list[str] = []
        self._began = time.monotonic()
        self._points = list[str]()
        self._stopped: list[threading.Thread] = []

    def play(self) -> None:
        """Kill until the asked number is reached or every goal has ended."""
        for name in sorted(POINTS) if self._options.points else ():
            self._arm(name)
        deck, stops = list[str](), list[str]()
        for number in range(self._options.kills):
            if self._clients.are_done():
                return
            deck = deck or self._shuffled(targets.KILLED)
            self._kill(deck.pop())
            if number % STOP_EVERY == STOP_EVERY // 2:
                stops = stops or self._shuffled(targets.STOPPED)
                self._stop(stops.pop())
            self._rest((number + 1) / self._options.kills)
        for thread in self._stopped:
            thread.join()

    def _shuffled(self, names: tuple[str, ...]) -> list[str]:
        deck = list(names)
        self._chance.shuffle(deck)
        return deck

    def _rest(self, share: float) -> None:
        """Wait until the stack is whole or a random pause has passed; then for the next kill's share of the merges."""
        began, pause = time.monotonic(), self._chance.uniform(*PAUSE_S)
        while time.monotonic() - began < pause and not (self.watch.is_whole() and time.monotonic() - began > PAUSE_S[0]):
            time.sleep(0.1)
        while time.monotonic() - began < PATIENCE_S and not self._clients.are_done() and self._merged() < 0.9 * share * self._tasks:
            time.sleep(self._chance.uniform(0.2, 1.5))

    def _merged(self) -> int:
        try:
            with transaction("owner") as connection:
                return store.merged(connection)
        except Unavailable:
            return 0

    # -- one fault -----------------------------------------------------------------------------------------------------------

    def _kill(self, target: str) -> None:
        if target == targets.POINT:
            self._points = self._points or self._shuffled(tuple(POINTS))
            return self._arm(self._points.pop())
        hit = self._find(target)
        if not hit.pids:
            return self._say(f"{self._at():7.1f} s  no {target} is there to be killed")
        fault = Fault(at_s=self._at(), kind="wipe" if target == "streams wiped" else "kill", target=target)
        targets.kill(self._settings, target, hit)
        self._say(f"{fault.at_s:7.1f} s  killed {target} ({len(hit.pids)})")
        self.watch.killed(fault, hit)
        if target in ("supervisor", "all at once"):
            self._up(target)
        return None

    def _arm(self, name: str) -> None:
        """Let whoever comes by a fault point next die there."""
        (self._settings.home / "faults" / name).touch()
        self._say(f"{self._at():7.1f} s  armed {name}")
        self.watch.armed(Fault(at_s=self._at(), kind="point", target=name))

    def _find(self, target: str) -> targets.Hit:
        """Find a target's processes; one that is down at the moment (or a sandbox, while none is live) is waited for."""
        end = time.monotonic() + 30
        while not (hit := targets.find(self._settings, target, self._chance)).pids and time.monotonic() < end:
            time.sleep(0.2)
        return hit

    def _up(self, target: str) -> None:
        """Start all again as a person does after a crash, and do no more than that: ``./airlock up``."""
        for attempt in (1, 2, 3):
            try:
                control.up(self._settings.home, lambda _: None, patience_s=UP_S)
                break
            except AirlockError as error:
                self._say(f"up after {target}, try {attempt}: {error}")
                self.manual.append(f"up after {target} had to be asked again: {error}")
        else:
            raise Unavailable(f"Airlock does not come up after {target} was killed. Look at the logs in {self._settings.logs_dir}.")
        with transaction("owner") as connection:
            budgets.raise_all(connection, BUDGET_MICRO)
        self.watch.back(target)

    def _stop(self, target: str) -> None:
        hit = self._find(target)
        if not hit.pids:
            return
        fault = Fault(at_s=self._at(), kind="stop", target=target)
        targets.send(hit, signal.SIGSTOP)
        self._say(f"{fault.at_s:7.1f} s  stopped {target} for {STOP_S:g} s ({len(hit.pids)})")
        self.watch.killed(fault, hit)
        thread = threading.Thread(target=self._go_on, args=(hit,), daemon=True)
        self._stopped.append(thread)
        thread.start()

    def _go_on(self, hit: targets.Hit) -> None:
        time.sleep(STOP_S)
        targets.send(hit, signal.SIGCONT)

    def _at(self) -> float:
        return round(time.monotonic() - self._began, 1)
