"""``./airlock bench goal``: the demo's goal in an Airlock of its own, and a plain DAG of the same shape in the same Airflow.

The seconds come from what the tables keep anyway; nothing is added to the way of a goal to measure it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

from include import settings as settings_module
from include.database import queries, rows
from include.database.unit_of_work import transaction
from include.drills import person
from include.drills.bench import cpu, moments, phases
from include.drills.bench.moments import StepMoment
from include.drills.bench.phases import Column
from include.drills.bench.report import Figures
from include.drills.bench.servers import KEPT
from include.drills.bench.stack import plain_dags
from include.errors import Unavailable
from include.frozen import Frozen
from include.local import control, runtime
from include.plans.models import Plan
from include.settings import Settings

_SQL = queries.load(__file__)
_PLAIN, _BUILDER = "plain", "include.flow.plain"
_PATIENCE_S = 300.0
_ENDS = ("land", "report", "outcome")


class GoalEnd(Frozen):
    """Whether a goal run has come to its end, which, and what Airflow calls it."""

    run_id: str
    state: str
    over: bool


class Measured(NamedTuple):
    """One goal and the plain DAG that ran after it: the columns, seconds of the plain graph by column, and of both wall and CPU."""

    columns: list[Column]
    plain: dict[str, float]
    goal_s: float
    goal_cpu: cpu.Used
    plain_s: float
    plain_cpu: cpu.Used

    @property
    def own(self) -> list[float]:
        """List the seconds of each attempt without model and tests."""
        return [column.own for column in self.columns if column.name != "goal"]


def run(count: int) -> Figures:
    """Measure so many goals of the demo, and a plain DAG of the same shape after each.

    Args:
        count: goals, one after the other; the table shows the one whose tasks' own seconds are the middle ones.
    """
    with _airlock() as settings:
        measured = [_measure(settings, number) for number in range(count)]
    shown = sorted(measured, key=lambda each: sum(each.own))[(count - 1) // 2]
    figures = [_figures(each) for each in measured]
    ratios = {name: median(each[name] for each in figures) for name in figures[0]}
    own = median(seconds for each in measured for seconds in each.own)
    return Figures(
        title=f"The demo's goal, offline model, {count} of them; shown is the middle one",
        rows=phases.rows(shown.columns, shown.plain),
        ratios={name: round(value, 2) for name, value in {**ratios, "own_s_of_an_attempt": own}.items()},
        notes=[
            "A phase ends where its name says. Tasks run side by side, so that the sum of the columns is longer than the goal.",
            "A test run counts from the start of its sealed process to its end; the base's own tests are counted with their sandbox.",
            "CPU seconds: of each process of the supervisor with all below it, all that happened meanwhile; containers are not below it.",
            "Below the table: medians over all goals, over all attempts of all tasks.",
        ],
    )


def _figures(each: Measured) -> dict[str, float]:
    used = {"goal": each.goal_cpu, "plain": each.plain_cpu}
    by_process = {f"{what}_cpu_s_{name}": seconds for what, cpus in used.items() for name, seconds in cpus.items()}
    sums = {
        "goal_s": each.goal_s,
        "goal_cpu_s": sum(each.goal_cpu.values()),
        "plain_s": each.plain_s,
        "plain_cpu_s": sum(each.plain_cpu.values()),
    }
    return {**sums, **by_process}


@contextmanager
def _airlock() -> Iterator[Settings]:
    """Run a whole Airlock in a home that goes away with it."""
    before = dict(os.environ)
    home = Path(tempfile.mkdtemp(prefix="airlock-bench-"))
    home.chmod(0o711)  # sandboxes without rights reach their directories in it
    for name in [name for name in os.environ if name.startswith(("AIRLOCK_", "AIRFLOW", "ANTHROPIC")) and name not in KEPT]:
        del os.environ[name]
    os.environ["AIRLOCK_HOME"] = str(home)
    settings_module.settings.cache_clear()
    runtime.update(home, api_port=runtime.free_port())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left running
    try:
        yield control.up(home, _say, offline=True, supervisor="include.drills.bench.stack")
    finally:
        control.down(home, _say)
        shutil.rmtree(home, ignore_errors=True)
        os.environ.clear()
        os.environ.update(before)
        settings_module.settings.cache_clear()


def _say(words: str) -> None:
    print(words, file=sys.stderr)


def _measure(settings: Settings, number: int) -> Measured:
    sample = person.make_sample(settings.home)
    request = person.request(goal=person.GOAL, repository=person.register(str(sample)), deadline="30m")
    before = cpu.now(settings)
    goal_run = person.submit(settings, request).run
    _wait_for_goal(settings, goal_run)
    goal_cpu = cpu.since(before, cpu.now(settings))
    with transaction("owner") as connection:
        document = str(rows.scalar(connection, _SQL.goal_plan, run=goal_run))
    _write_plain(settings, document)
    plain_run, before = f"{_PLAIN}-{number}", cpu.now(settings)
    _trigger_plain(settings, plain_run)
    plain = _wait_for_run(settings, plain_run)
    plain_cpu = cpu.since(before, cpu.now(settings))
    depends_on = {task.key: task.depends_on for task in Plan.model_validate_json(document).tasks}
    told = moments.of_goal(settings, goal_run)
    goal_s = (told[-1].at - told[0].at).total_seconds()
    _say(f"Goal {number + 1}: {goal_s:.1f} s.")
    plain_s = (plain[-1].at - plain[0].at).total_seconds()
    return Measured(phases.columns(told, depends_on), _plain(plain, depends_on), goal_s, goal_cpu, plain_s, plain_cpu)


def _wait_for_goal(settings: Settings, goal_run: str) -> None:
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        with transaction("owner") as connection:
            end_of = rows.one(connection, GoalEnd, _SQL.goal_over, run=goal_run)
        if end_of.over:
            if end_of.state != "COMPLETED":
                raise Unavailable(f"The demo's goal ended {end_of.state}: this is a defect, please report it.")
            _wait_for_run(settings, end_of.run_id)
            return
        time.sleep(0.2)
    raise Unavailable(f"The demo's goal has not ended after {_PATIENCE_S:g} s. Run the benchmark again on a quieter machine.")


def _wait_for_run(settings: Settings, run_id: str) -> list[StepMoment]:
    """Wait for the end of a run in Airflow; returns its moments."""
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end:
        found = moments.of_airflow(settings, [run_id])
        if any(each.task_id == "" and each.kind == "ends" for each in found):
            return found
        time.sleep(0.2)
    raise Unavailable(f"Airflow's run {run_id} has not ended after {_PATIENCE_S:g} s. Run the benchmark again on a quieter machine.")


def _write_plain(settings: Settings, plan: str) -> None:
    """Write the plan's graph out of plain steps, as a DAG file; once, for all goals of the demo have the same plan."""
    goal = {"dag_id": _PLAIN, "title": "Plain", "text": "", "repository": "none", "base_branch": "main", "agent": "none"}
    document = json.dumps({"goal": goal, "revision": 1, "plan": plan})
    target = plain_dags(settings.home) / "plain.py"
    draft = target.with_suffix(".draft")
    # Airflow passes over a file in which it does not find its own name.
    draft.write_text(f"# An Airflow DAG.\nfrom {_BUILDER} import build\n\ndag = build({json.dumps(document)})\n")
    draft.rename(target)


def _trigger_plain(settings: Settings, run_id: str) -> None:
    airflow, end = person.Airflow(settings), time.monotonic() + _PATIENCE_S
    while (answer := airflow.trigger(_PLAIN, run_id, {})).status_code == 404 and time.monotonic() < end:
        time.sleep(0.5)
    if answer.status_code != 200:
        raise Unavailable(f"Airflow did not start the plain DAG: {answer.status_code} {answer.text[:300]}")


def _plain(found: list[StepMoment], depends_on: dict[str, tuple[str, ...]]) -> dict[str, float]:
    """Count the seconds of each group, from when it could begin, and of what stands behind all groups."""
    begun = next(each.at for each in found if each.task_id == "" and each.kind == "starts")
    ended = {each.task_id.partition(".")[0]: each.at for each in found if each.kind == "ends" and each.task_id}
    since = {key: max((ended[other] for other in others), default=begun) for key, others in depends_on.items()}
    groups = {key: (ended[key] - since[key]).total_seconds() for key in depends_on}
    last = max(ended[key] for key in depends_on)
    return {"goal": (ended[_ENDS[-1]] - last).total_seconds(), **groups}
