"""One trial: a goal of one task is brought to a place, a person acts on it there, and its end is awaited and compared."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from threading import Timer
from typing import Any, Literal

import psycopg
from psycopg.rows import dict_row
from typer.testing import CliRunner

from include.cli import goal as goal_cli
from include.cli import submit
from include.database.unit_of_work import transaction
from include.goals import intake
from include.goals.models import GoalRequest
from include.plans import planner
from include.plans.models import Plan, Task
from include.settings import load
from tests.kit.scale import patience
from tests.kit.stack import Stack
from tests.kit.waiting import poll

PLACES = ("admit waiting", "start", "lease", "verify", "merge")
ACTIONS = (
    "cancel", "clear a step", "clear the group", "mark step failed", "mark step success", "mark group success", "mark run failed",
    "mark run success", "delete the run",
)  # fmt: skip
STEP = {"admit waiting": "admit", "start": "start", "lease": "lease", "verify": "verify", "merge": "merge"}
STEPS = ("admit", "start", "lease", "verify", "merge")
KEY = {"lease": "late"}  # else "quick"
BASE = {"verify": "sleepy"}  # else "main": whose tests take seconds

Sandbox = Literal["gone", "goes on"]


@dataclass(frozen=True)
class Expected:
    """What must come of an action at a place. ``gone``: every sandbox that lived at the action; ``goes on``: the same attempt ends by itself."""

    sandbox: Sandbox
    goal: frozenset[str]


OVER = Expected("gone", frozenset({"CANCELLED"}))
AGAIN = Expected("gone", frozenset({"COMPLETED"}))  # a new attempt, or the one that has merged meanwhile
GOES_ON = Expected("goes on", frozenset({"COMPLETED"}))  # the step runs again and finds its attempt
RACE = Expected("gone", frozenset({"CANCELLED", "COMPLETED"}))  # the merge that had begun may be made first: with its green verdict

EXPECTED = (
    {(action, place): OVER for action in ACTIONS for place in PLACES}
    | {("clear a step", place): GOES_ON for place in PLACES}
    | {("clear the group", place): AGAIN for place in PLACES}
    | {(action, "merge"): RACE for action in ("cancel", "mark step success", "mark group success")}
)
"""The one table: which cell expects what. Deleting a live run is refused by Airflow (409) until it is marked and its teardowns are done."""


@dataclass
class Trial:
    """One goal, what is done to it, and what was seen."""

    action: str
    place: str
    number: int
    hold_s: float = 0.0  # merge: how long its lock is held after the action began
    goal_run: str = ""
    dag_id: str = ""
    run_id: str = ""
    key: str = ""
    branch: str = ""
    base: str = ""
    gone_s: float | None = None  # action's return -> the last sandbox gone
    ended_s: float | None = None  # revoked -> ended, the longest
    load: float = 0.0  # of the machine, in processes that want a core, for each core
    end: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def expected(self) -> Expected:
        return EXPECTED[self.action, self.place]

    @property
    def beside(self) -> bool:
        """Whether another task of the goal goes on meanwhile, so that nothing ends the first one but its own steps."""
        return self.number % 2 == 0 and self.place in ("lease", "verify", "merge") and self.key != "filler"

    @property
    def task_run(self) -> str:
        return f"{self.goal_run}-{self.key}"

    @property
    def name(self) -> str:
        return f"{self.action} at {self.place} #{self.number} ({self.goal_run})"


class Stand:
    """What the trials share: the stack, connections to both databases, and the repository."""

    def __init__(self, stack: Stack, repository: Path) -> None:
        self.stack, self.path = stack, repository
        self.settings = load(stack.home)
        self.name = submit.register(str(repository)).name
        self.airflow = stack.airflow
        self.airflow.run("submit_goal", "none")  # logs in, before the threads
        self.commands = ProcessPoolExecutor(3, mp_context=get_context("spawn"))  # a command's start takes seconds on a busy machine
        list(self.commands.map(command, ["--help"] * 6))

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.settings.dsn("owner"), row_factory=dict_row) as connection:
            return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]

    def airflow_sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(self.settings.dsn("owner", "airflow"), row_factory=dict_row) as connection:
            return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]

    def clock(self) -> float:
        return float(self.sql("SELECT extract(epoch FROM clock_timestamp())::float AS now")[0]["now"])

    def step(self, trial: Trial, step: str) -> str:
        rows = self.airflow_sql("SELECT state FROM task_instance WHERE dag_id = %s AND run_id = %s AND task_id = %s",
                                trial.dag_id, trial.run_id, f"{trial.key}.{step}")  # fmt: skip
        return str(rows[0]["state"]) if rows else ""

    def run_state(self, trial: Trial) -> str:
        rows = self.airflow_sql("SELECT state FROM dag_run WHERE dag_id = %s AND run_id = %s", trial.dag_id, trial.run_id)
        return str(rows[0]["state"]) if rows else "deleted"

    def launch(self, trial: Trial, key: str = "") -> None:
        """Store the goal and start its run, as submit_goal's steps do."""
        self.store(trial, key)

        def started() -> bool:
            return self.airflow.trigger(trial.dag_id, trial.run_id, {}).status_code == 200

        until("Airflow knows the goal", started, 60, 0.5)

    def store(self, trial: Trial, key: str = "") -> None:
        """Store the goal with a plan by hand."""
        trial.key = key or KEY.get(trial.place, "quick")
        task = Task(key=trial.key, title="Subtraction", prompt="Add sub.py with a test.", touches=("sub.py", "tests/**"))
        other = Task(key="beside", title="Double", prompt="Add beside.py with a test.", touches=("beside.py", "tests/**"))
        plan = Plan(summary="A plan.", tasks=(task, other) if trial.beside else (task,))
        request = GoalRequest(
            goal=f"E2E people: {trial.action} at {trial.place}", repository=self.name, base=trial.branch, key=trial.branch
        )
        with transaction("airflow") as connection:
            run = intake.submit(connection, self.settings, request, "people", unlisted=True).run
            planner.store(connection, run, plan)
        trial.goal_run, trial.dag_id, trial.run_id = run.id, run.dag_id, run.run_id

    def leases(self, trial: Trial, of: str = "") -> list[dict[str, Any]]:
        """All leases of the goal run, or of one task run."""
        return self.sql("SELECT *, extract(epoch FROM ended_at)::float AS ended FROM leases WHERE goal_run = %s AND %s IN ('', task_run)",
                        trial.goal_run, of)  # fmt: skip

    def live(self, trial: Trial) -> list[dict[str, Any]]:
        """The sandboxes of the trial's task."""
        return [lease for lease in self.leases(trial, trial.task_run) if lease["ended_at"] is None]


def command(*words: str) -> tuple[int, str]:
    """``./airlock goal …`` in a process that has been started before: its exit code and what it printed."""
    done = CliRunner().invoke(goal_cli.app, list(words))
    return done.exit_code, done.output


def until(what: str, check: Callable[[], Any], seconds: float, pause: float = 0.2) -> Any:
    """Poll until true, for so many seconds of a free machine.

    Raises:
        TimeoutError: it did not become true in time.
    """
    if value := poll(check, seconds, pause):
        return value
    raise TimeoutError(f"waited {patience(seconds):g} s in vain: {what}")


# -- places --------------------------------------------------------------------------------------------------------------


def reached(stand: Stand, trial: Trial) -> bool:
    """Is the task at its place now?"""
    step = stand.step(trial, STEP[trial.place])
    if trial.place == "admit waiting":
        rows = stand.sql("SELECT 1 FROM task_runs WHERE id = %s AND state = 'PENDING'", trial.task_run)
        return bool(rows) and step == ("running" if trial.number % 2 else "deferred")  # both ways of waiting
    lives = stand.live(trial)
    if trial.place == "start":
        return step == "running" and any(lease["started_at"] is None for lease in lives)
    if trial.place == "lease":
        rows = stand.sql("SELECT 1 FROM attempts WHERE task_run = %s AND state = 'WORKING'", trial.task_run)
        return bool(rows) and step == "deferred" and bool(lives)
    return any(lease["kind"] == "verify" and lease["started_at"] is not None for lease in lives)


@contextmanager
def held_at(stand: Stand, trial: Trial, patience_s: float = 180) -> Iterator[Callable[[], None]]:
    """Bring the task to its place; gives what begins to let it go (called when the action begins)."""
    if trial.place != "merge":
        until(f"{trial.name} is there", lambda: reached(stand, trial), patience_s)
        yield lambda: None
        return
    until(f"{trial.name} is verified", lambda: stand.sql(
        "SELECT 1 FROM task_runs WHERE id = %s AND state = 'MERGE_QUEUE'", trial.task_run), patience_s, 0.05)  # fmt: skip
    with psycopg.connect(stand.settings.dsn("owner")) as lock:
        lock.execute("SELECT 1 FROM goal_runs WHERE id = %s FOR UPDATE", [trial.goal_run])
        pid = lock.info.backend_pid
        until(f"{trial.name} waits for the lock", lambda: stand.step(trial, "merge") == "running" and stand.sql(
            "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", pid), 60)  # fmt: skip
        timers: list[Timer] = []

        def let_go() -> None:
            timers.append(Timer(trial.hold_s, lock.rollback))
            timers[0].start()

        yield let_go
        for timer in timers:
            timer.join()


# -- actions -------------------------------------------------------------------------------------------------------------


def act(stand: Stand, trial: Trial) -> None:
    """Do to the task what the trial's action says, as a person does it: by REST as the UI, or by the command line."""
    run = f"/dags/{trial.dag_id}/dagRuns/{trial.run_id}"
    action = trial.action
    if action == "cancel":
        code, said = stand.commands.submit(command, "cancel", trial.goal_run).result()
        if code:
            trial.problems.append(f"goal cancel: {said}")
    elif action.startswith("clear"):
        steps = [STEP[trial.place]] if action == "clear a step" else list(STEPS)
        body = {"dry_run": False, "dag_run_id": trial.run_id, "task_ids": [f"{trial.key}.{step}" for step in steps], "only_failed": False,
                "reset_dag_runs": True}  # fmt: skip
        _ask(stand, trial, "POST", f"/dags/{trial.dag_id}/clearTaskInstances", body)
    elif action.startswith("mark step"):
        _ask(stand, trial, "PATCH", f"{run}/taskInstances/{trial.key}.{STEP[trial.place]}", {"new_state": action.split()[-1]})
    elif action == "mark group success":
        _ask(stand, trial, "PATCH", f"{run}/taskGroupInstances/{trial.key}", {"new_state": "success"})
    elif action.startswith("mark run"):
        _ask(stand, trial, "PATCH", run, {"state": action.split()[-1]})
    else:
        _delete(stand, trial, run)


def _ask(stand: Stand, trial: Trial, method: str, path: str, body: dict[str, Any]) -> None:
    answer = stand.stack.ask(method, path, body)
    if answer.status_code != 200:
        trial.problems.append(f"{method} {path}: {answer.status_code} {answer.text[:300]}")


def _delete(stand: Stand, trial: Trial, run: str) -> None:
    """Airflow refuses a live run; whoever insists marks it first. The last word is in ``delete_for_good``."""
    refused = stand.stack.ask("DELETE", run)
    if refused.status_code != 409:
        trial.problems.append(f"DELETE of a live run: {refused.status_code}, not 409")
    _ask(stand, trial, "PATCH", run, {"state": "failed"})


def delete_for_good(stand: Stand, trial: Trial) -> None:
    """Delete as soon as Airflow allows it: as soon as its teardowns are done."""
    run = f"/dags/{trial.dag_id}/dagRuns/{trial.run_id}"
    until(f"{trial.name} is deleted", lambda: stand.stack.ask("DELETE", run).status_code in (204, 404), 120, 1)


def runnable() -> int:
    """Count the processes of this machine that want a core now."""
    return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])


# -- what is seen ---------------------------------------------------------------------------------------------------------


def watch_it_go(stand: Stand, trial: Trial, lived: list[Any], returned: float) -> None:
    """Measure, on PostgreSQL's clock, when the last of the sandboxes that lived at the action was gone."""

    def ended() -> list[dict[str, Any]]:
        looks.append(runnable())
        rows = [lease for lease in stand.leases(trial) if lease["id"] in lived]
        return rows if all(row["ended_at"] is not None for row in rows) else []

    looks = [os.getloadavg()[0]]
    try:
        rows = until(f"{trial.name}: the sandbox is gone", ended, 75) if lived else []
    except TimeoutError as error:
        trial.problems.append(str(error))
        return
    trial.load = round(max(looks[0], statistics.mean(looks)) / (os.cpu_count() or 1), 1)
    trial.gone_s = max([row["ended"] - returned for row in rows], default=0.0)
    spans = [(row["ended_at"] - row["revoked_at"]).total_seconds() for row in rows if row["revoked_at"]]
    trial.ended_s = max(spans, default=None)
