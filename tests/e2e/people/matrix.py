"""Many trials in one stack, several side by side; and the table of what came of them."""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from include.local import control
from tests.e2e.people.ends import await_end, compare, where
from tests.e2e.people.trials import ACTIONS, PLACES, Stand, Trial, act, held_at, reached, until, watch_it_go

SIDE_BY_SIDE = 5
TOGETHER = (("admit waiting",), ("start",), ("lease", "verify", "merge"))
"""Places whose trials do not disturb each other: waiting needs a full node, starting one whose warden stands still."""
PATIENCE_S = 600.0


def diagonal() -> list[Trial]:
    """Each action once, each place at least once, and one beside a task that goes on."""
    once = [Trial(action, PLACES[number % len(PLACES)], 1) for number, action in enumerate(ACTIONS)]
    return [*once, Trial("mark step failed", "verify", 2)]


def all_cells(times: int) -> list[Trial]:
    """Every action at every place, so many times."""
    return [Trial(action, place, number) for place in PLACES for number in range(1, times + 1) for action in ACTIONS]


def play(stand: Stand, trials: list[Trial], capacity: int, told: Callable[[list[Trial]], None], seed: int = 4) -> None:
    """Play all trials; problems are kept in each; ``told`` is called after each part with what has been played."""
    chance = random.Random(seed)
    for trial in trials:
        trial.hold_s = round(chance.uniform(0, 4), 1)
    for places in TOGETHER:
        mine = [trial for trial in trials if trial.place in places]
        if not mine:
            continue
        began = time.monotonic()
        if places == ("admit waiting",):
            _at_admit(stand, mine, capacity)
        elif places == ("start",):
            for wave in _waves(mine, min(SIDE_BY_SIDE, capacity)):
                _at_start(stand, wave)
        else:
            _side_by_side(mine, lambda trial: _one(stand, trial), min(SIDE_BY_SIDE, capacity))
        _side_by_side(mine, lambda trial: await_end(stand, trial, PATIENCE_S), 16)
        _side_by_side(mine, lambda trial: compare(stand, trial), 3)
        print(f"{', '.join(places)}: {len(mine)} trials in {time.monotonic() - began:.0f} s", flush=True)
        told([trial for trial in trials if trial.end])


def _one(stand: Stand, trial: Trial) -> None:
    stand.launch(trial)
    with held_at(stand, trial) as let_go:
        _act_and_watch(stand, trial, let_go)


def _act_and_watch(stand: Stand, trial: Trial, let_go: Callable[[], None]) -> None:
    lived = [lease["id"] for lease in stand.live(trial)]
    let_go()
    act(stand, trial)
    returned = stand.clock()
    if trial.expected.sandbox == "gone":
        watch_it_go(stand, trial, lived, returned)


def _at_admit(stand: Stand, trials: list[Trial], capacity: int) -> None:
    """The node is full of workers that never finish; they are cancelled when all has been done to those that wait."""
    at_work = stand.sql("SELECT sandbox FROM leases WHERE kind = 'work' AND ended_at IS NULL")
    assert not at_work, f"{at_work} take room that the fillers are meant for"
    room = stand.sql("SELECT sum(capacity) AS room FROM nodes")[0]["room"]
    assert room == capacity, f"the node has room for {room} workers, not {capacity}: with what settings was it brought up?"
    fillers = [Trial("cancel", "lease", number, branch=f"filler-{number}") for number in range(capacity)]
    _side_by_side(fillers, lambda trial: stand.launch(trial, key="filler"), capacity)
    _side_by_side(fillers, lambda trial: until("the node is full", lambda: reached(stand, trial), 180), capacity)
    missing = [f"{filler.problems}: {where(stand, filler)}" for filler in fillers if filler.problems]
    assert not missing, "\n".join(missing)
    for wave in _waves(trials, SIDE_BY_SIDE):
        _side_by_side(wave, lambda trial: _one(stand, trial), SIDE_BY_SIDE)
    _side_by_side(fillers, lambda trial: act(stand, trial), 3)
    assert not [filler.problems for filler in fillers if filler.problems]


def _at_start(stand: Stand, trials: list[Trial]) -> None:
    """The warden is stopped while all of a wave come to start and are acted on; then it goes on."""
    with ExitStack() as going_on:
        going_on.enter_context(_stopped_warden(stand))
        _side_by_side(trials, stand.launch, len(trials))
        for trial in trials:
            _guarded(lambda trial: until(f"{trial.name} is there", lambda: reached(stand, trial), 90) and None, trial)
        ready = [trial for trial in trials if not trial.problems]
        lived = {trial.branch: [lease["id"] for lease in stand.live(trial)] for trial in ready}
        returned: dict[str, float] = {}

        def one(trial: Trial) -> None:
            act(stand, trial)
            returned[trial.branch] = stand.clock()

        with ThreadPoolExecutor(len(ready) or 1) as pool:
            acts = {trial.branch: pool.submit(_guarded, one, trial) for trial in ready}
            for trial in ready:
                if trial.action != "cancel":  # this command itself waits for the warden
                    acts[trial.branch].result()
            going_on.close()
            released = stand.clock()
    for trial in ready:
        if trial.expected.sandbox == "gone" and trial.branch in returned:  # while the test held the warden still, nothing could go
            watch_it_go(stand, trial, lived[trial.branch], max(returned[trial.branch], released))


@contextmanager
def _stopped_warden(stand: Stand) -> Iterator[None]:
    pid = control.state(stand.stack.home).process("warden").pid or 0
    os.kill(pid, signal.SIGSTOP)
    pool = ThreadPoolExecutor(1)
    done: list[bool] = []

    def beat() -> None:  # its node is not to be taken for dead
        while not done:
            stand.sql("UPDATE nodes SET heartbeat_at = clock_timestamp() RETURNING 1")
            time.sleep(5)

    beating = pool.submit(beat)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        done.append(True)
        beating.result()
        pool.shutdown()


def _waves(trials: list[Trial], size: int) -> Iterator[list[Trial]]:
    for start in range(0, len(trials), size):
        yield trials[start : start + size]


def _side_by_side(trials: list[Trial], what: Callable[[Trial], Any], many: int) -> None:
    with ThreadPoolExecutor(max(1, many)) as pool:
        list(pool.map(lambda trial: _guarded(what, trial), trials))


def _guarded(what: Callable[[Trial], Any], trial: Trial) -> None:
    try:
        what(trial)
    except Exception as error:
        trial.problems.append(f"{type(error).__name__}: {error}" if isinstance(error, TimeoutError) else traceback.format_exc(limit=4))


# -- the table -----------------------------------------------------------------------------------------------------------


def rows(trials: list[Trial]) -> list[dict[str, Any]]:
    """One row a cell."""
    table = []
    for action in ACTIONS:
        for place in PLACES:
            mine = [trial for trial in trials if (trial.action, trial.place) == (action, place)]
            if not mine:
                continue
            gone = [trial.gone_s for trial in mine if trial.gone_s is not None]
            ended = [trial.ended_s for trial in mine if trial.ended_s is not None]
            table.append({
                "action": action, "place": place, "trials": len(mine), "failures": sum(bool(trial.problems) for trial in mine),
                "sandbox": mine[0].expected.sandbox,
                "gone_p50_s": round(statistics.median(gone), 2) if gone else None, "gone_max_s": round(max(gone), 2) if gone else None,
                "load_max": max(trial.load for trial in mine), "revoked_to_gone_max_s": round(max(ended), 2) if ended else None,
                "ends": sorted({trial.end for trial in mine}),
            })  # fmt: skip
    return table


def text(table: list[dict[str, Any]]) -> str:
    """The table for a person."""
    lines = [
        f"{'action':20} {'place':14} {'n':>3} {'bad':>3} {'sandbox':8} {'p50 s':>6} {'max s':>6} {'revoke→gone':>11}  ends (PostgreSQL/Airflow/CLI)"
    ]
    for row in table:
        numbers = [("-" if row[name] is None else f"{row[name]:.1f}") for name in ("gone_p50_s", "gone_max_s", "revoked_to_gone_max_s")]
        lines.append(f"{row['action']:20} {row['place']:14} {row['trials']:3} {row['failures']:3} {row['sandbox']:8} {numbers[0]:>6} {numbers[1]:>6}"
                     f" {numbers[2]:>11}  {', '.join(row['ends'])}")  # fmt: skip
    return "\n".join(lines)
