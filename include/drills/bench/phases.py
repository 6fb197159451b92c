"""Where the seconds of a goal went: its moments in order, each interval told by what ended with it, so that all of them add up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

MODEL, TESTS_AT_WORK, TESTS_VERIFIED = "model", "tests, by the worker", "tests, verified"
NOT_OURS = (MODEL, TESTS_AT_WORK, TESTS_VERIFIED)
FIRST_QUESTION, TURN = "worker: clone, assignment, first question", "worker: {}"

# What ends at a moment of a task, in the order of a task. A worker's turns stand behind ``model``, by the names of their tools.
TASK = {
    "admit.starts": "Airflow: to admit",
    "work.granted": "admit: policy, room, lease",
    "start.starts": "Airflow: admit to start",
    "work.started": "start: the worker's sandbox is up",
    "worker.ready": "worker: first sign of life",
    "worker.asks": FIRST_QUESTION,
    "model.sent": "broker: to the model",
    "model.settled": MODEL,
    "tests.worker": TESTS_AT_WORK,
    "worker.ends": TURN.format("hand-in"),
    "work.evidence": "worker: its end, evidence",
    "task.VERIFYING": "lease: sees the hand-in",
    "lease.ends": "Airflow: the lease step ends",
    "verify.starts": "Airflow: lease to verify",
    "verify.granted": "verify: quarantine, merge in memory, lease",
    "verify.started": "verify: its sandbox is up",
    "verify.evidence": "verify: clone, report, evidence",
    "tests.verifier": TESTS_VERIFIED,
    "verdict.asked": "verify: report read, facts",
    "verdict.judged": "gatekeeper: verdict",
    "task.MERGE_QUEUE": "verify: verdict taken in",
    "rework.decided": "verify: verdict taken in",
    "rework.cleared": "door: steps cleared",
    "merge.starts": "Airflow: verify to merge",
    "merge.ends": "merge: compare and swap",
}
GOAL = {
    "intake.starts": "Airflow: to intake",
    "verify.granted": "intake: goal stored, base fetched",
    "verify.started": "intake: sandbox is up",
    "verify.evidence": "intake: the base's own tests in it",
    "base.known": "intake: result stored",
    "plan.starts": "Airflow: intake to plan",
    "model.sent": "plan: the broker is asked",
    "model.settled": MODEL,
    "plan.stored": "plan: checked and stored",
    "launch.starts": "Airflow: plan to launch",
    "run.starts": "launch: DAG visible, run created",
    "land.starts": "Airflow: to land",
    "land.ends": "land: merge, push",
    "report.starts": "Airflow: land to report",
    "report.ends": "report: summary",
    "outcome.starts": "Airflow: report to outcome",
    "outcome.ends": "outcome",
}


class Moment(NamedTuple):
    """Something that a table knows the time of; ``key`` is the task's, empty for the goal's own."""

    key: str
    at: datetime
    kind: str
    detail: str = ""


Phases = dict[str, float]
"""Seconds by phase."""


class Column(NamedTuple):
    """One attempt of a task, or the goal itself."""

    name: str
    phases: Phases

    @property
    def seconds(self) -> float:
        """Add up all phases."""
        return sum(self.phases.values())

    @property
    def own(self) -> float:
        """Add up the phases without the model and the test runs."""
        return sum(seconds for phase, seconds in self.phases.items() if phase not in NOT_OURS)


def columns(moments: Iterable[Moment], depends_on: dict[str, tuple[str, ...]]) -> list[Column]:
    """Divide the seconds of a goal into columns: the goal's own, and one for each attempt of each task.

    Args:
        moments: of one goal run, in order; those of the run itself are ``run.queued`` and so on.
        depends_on: of each task of its plan.
    """
    all_ = list(moments)
    begun = next(moment.at for moment in all_ if moment.kind == "run.starts")
    merged = {moment.key: moment.at for moment in all_ if moment.kind == "merge.ends"}
    found = [Column("goal", _goal(all_, begun, max(merged.values())))]
    for key, others in depends_on.items():
        since = max((merged[other] for other in others), default=begun)
        mine = [Moment(key, since, "since"), *(moment for moment in all_ if moment.key == key and moment.at >= since)]
        attempts = [_phases(part, TASK) for part in _attempts(mine)]
        found += [Column(f"{key}_{number}" if number > 1 else key, phases) for number, phases in enumerate(attempts, 1)]
    return found


def _goal(all_: list[Moment], begun: datetime, merged: datetime) -> Phases:
    """Tell the goal's own seconds, before its tasks and after them."""
    own = [moment for moment in all_ if not moment.key]
    before = [moment for moment in own if moment.at <= begun]
    after = [Moment("", merged, "since"), *(moment for moment in own if moment.at > merged)]
    found = _phases(before, GOAL)
    for phase, seconds in _phases(after, GOAL).items():
        found[phase] = found.get(phase, 0.0) + seconds
    return found


def _attempts(moments: list[Moment]) -> Iterator[list[Moment]]:
    """Cut where a rework was decided that lets a new worker in."""
    part: list[Moment] = []
    for moment in moments:
        part.append(moment)
        if moment.kind == "rework.decided" and "admit" in moment.detail.split(","):
            yield part
            part = [moment._replace(kind="since")]
        if moment.kind == "merge.ends":
            break
    yield part


def _phases(moments: list[Moment], names: dict[str, str]) -> Phases:
    found: Phases = {}
    turn = FIRST_QUESTION
    for before, after in pairwise(moment for moment in moments if moment.kind in names or moment.kind in ("since", "run.queued")):
        phase = names.get(after.kind, after.kind)
        if after.kind in ("worker.asks", "worker.ends"):
            phase = turn
        if after.kind.startswith("tests."):
            _add(found, _RUN_IN[after.kind], (after.at - before.at).total_seconds())
            _move(found, _RUN_IN[after.kind], phase, int(after.detail or 0) / 1000)
            continue
        if after.kind == "model.settled" and after.key:
            turn = TURN.format(after.detail or "hand-in")
        _add(found, phase, (after.at - before.at).total_seconds())
    return found


# The phase that a test run is a part of: its figure is known, and taken out of that.
_RUN_IN = {"tests.worker": TURN.format("run_tests"), "tests.verifier": TASK["verify.evidence"]}


def _add(phases: Phases, phase: str, seconds: float) -> None:
    phases[phase] = phases.get(phase, 0.0) + seconds


def _move(phases: Phases, source: str, target: str, seconds: float) -> None:
    _add(phases, source, -seconds)
    _add(phases, target, seconds)


def order(found: Iterable[Column]) -> list[str]:
    """List all phases of these columns, as a goal passes them."""
    there = {phase for column in found for phase in column.phases}
    known = list(dict.fromkeys((*GOAL.values(), *TASK.values())))
    turns = sorted(there - set(known))
    at = known.index(TESTS_AT_WORK)
    return [phase for phase in (*known[:at], *turns, *known[at:]) if phase in there]


def rows(found: list[Column], plain: dict[str, float]) -> list[dict[str, Any]]:
    """Make the table: a line a phase, a column an attempt, in milliseconds; then sums, and the plain graph beside them.

    Args:
        plain: seconds of the plain DAG by the name of a column.
    """
    lines = [_row(phase, {column.name: column.phases.get(phase) for column in found}) for phase in order(found)]
    lines.append(_row("in all", {column.name: column.seconds for column in found}))
    lines.append(_row("its own: without model and tests", {column.name: column.own for column in found}))
    return [*lines, _row("plain Airflow, the same steps", {column.name: plain.get(column.name) for column in found})]


def _row(phase: str, seconds: dict[str, float | None]) -> dict[str, Any]:
    every = [value for value in seconds.values() if value is not None]
    cells = {"sum_ms": sum(every), **{f"{name}_ms": value for name, value in seconds.items()}}
    return {"phase": phase, **{name: None if value is None else round(value * 1000) for name, value in cells.items()}}
