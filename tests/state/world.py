"""A goal run on a real database beside its model in Python: every operation goes to both, and after each of them they must be equal.

Where the services choose (a class of failure, whether there is room), the model takes the answer, checks that it was allowed, and predicts the rest.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row

from include.errors import IllegalTransition
from include.goals import service as goals
from include.goals.models import MICRO
from include.repository import mirror, trees
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, Failure
from include.tasks.rules import CLASSES, ENDED, TRANSITIONS
from tests.kit import build

ALLOWED = frozenset(TRANSITIONS)
RESTS = ("FAILED", "ESCALATED", "CANCELLED")
LIVE = ("LEASED", "EXECUTING", "BLOCKED")
BUDGET = 1_000_000
TASKS = {"base": (), "side": (), "top": ("base", "side")}
PLAN = {
    "summary": "s",
    "tasks": [{"key": k, "title": k, "prompt": "p", "depends_on": list(d), "capabilities": ["test"]} for k, d in TASKS.items()],
}
STEPS = ("base.lease", "base.verify", "top.lease", "top.verify")  # task instances that decide
SNAPSHOT = """
SELECT json_build_object(
  'run', (SELECT json_build_array(state, ended_at IS NOT NULL, reserved_micro, spent_micro) FROM goal_runs WHERE id = %s),
  'tasks', (SELECT json_object_agg(id, json_build_array(state, epoch, merged_commit IS NOT NULL)) FROM task_runs WHERE goal_run = %s),
  'attempts', (SELECT json_object_agg(a.task_run || '/' || a.epoch, json_build_array(a.state, a.failure, a.counted, a.finished_at IS NOT NULL,
     a.ended_at IS NOT NULL)) FROM attempts a JOIN task_runs t ON t.id = a.task_run WHERE t.goal_run = %s),
  'leases', (SELECT json_object_agg(l.task_run || '/' || l.epoch, json_build_array(l.revoked_at IS NOT NULL, l.ended_at IS NOT NULL))
     FROM leases l WHERE l.goal_run = %s AND kind = 'work'),
  'reworks', (SELECT json_agg(json_build_array(r.task_run, r.epoch, r.ti_id)) FROM reworks r JOIN task_runs t ON t.id = r.task_run
     WHERE t.goal_run = %s),
  'merges', (SELECT json_object_agg(m.task_run, m.epoch) FROM merges m JOIN task_runs t ON t.id = m.task_run WHERE t.goal_run = %s),
  'events', (SELECT json_agg(json_build_array(id, machine, subject, COALESCE(from_state, ''), to_state) ORDER BY id) FROM task_events
     WHERE id > %s AND kind = 'transition')) AS s
"""


class Divergence(AssertionError):
    """The database and the model do not say the same, or an invariant is broken."""


def must(holds: bool, words: str) -> None:
    if not holds:
        raise Divergence(words)


def make_mirror(home: Path) -> None:
    """A mirror with one commit, on the branch that every goal run of a walk starts from."""
    work, bare = home / "work", home / "mirrors" / "sample.git"
    bare.parent.mkdir(parents=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "-b", "main", str(work)], ["-C", str(work), *identity, "commit", "-q", "--allow-empty", "-m", "base"],
                    ["clone", "-q", "--bare", str(work), str(bare)]):  # fmt: skip
        subprocess.run(["git", *command], check=True, capture_output=True)


class Moves(NamedTuple):
    """What a walker does: operations by name, each with its weight, and what the database must refuse at any time."""

    operations: dict[str, tuple[Callable[[World], Callable[[World], None]], int]]
    illegal: Callable[[World], None]


class World:
    """One goal run, its model, and a seeded walker over both."""

    def __init__(self, settings: Settings, moves: Moves, seed: int, illegal: float = 0.05) -> None:
        self.settings, self.moves, self.rng, self.illegal = settings, moves, random.Random(seed), illegal
        self.base = trees.resolve(mirror.path_of(settings, "sample"), "refs/heads/main")
        self.connections = {
            role: psycopg.connect(settings.dsn(role), row_factory=dict_row, autocommit=True)
            for role in ("airflow", "broker", "cli", "owner")
        }
        self.history: list[str] = []
        self.focus = ""
        self.steps, self.seen = 0, 0
        self.tried: dict[str, int] = {}
        self.did: dict[str, int] = {}
        self.clears: dict[str, int] = {}  # of each task's admit step: how many tries Airflow allows it
        self.granted: dict[str, int] = {}  # the same when it last granted

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()

    # -- one transaction of one role -------------------------------------------------------------------------------------

    def do(self, role: str, work: Callable[[Any], Any]) -> Any:
        """Run ``work`` in a transaction; a refusal of the database comes as the exception that the product's own transaction raises."""
        try:
            with self.connections[role].transaction():
                return work(self.connections[role])
        except psycopg.Error as error:
            if error.sqlstate == "AL001":
                raise IllegalTransition(str(error)) from error
            raise

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        try:
            cursor = self.connections["owner"].execute(statement, values)  # one statement, committed by itself
        except psycopg.Error as error:
            raise IllegalTransition(str(error)) if error.sqlstate == "AL001" else error from error
        return cursor.fetchall() if cursor.description else []

    # -- the model --------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A new goal run, in RUNNING, and its model."""
        self.run = f"g{self.rng.getrandbits(48):012x}"
        with self.connections["owner"].transaction():
            goal = build.goal(self.connections["owner"], self.run, budget_usd=BUDGET / MICRO)
            build.plan(self.connections["owner"], goal.id, PLAN)
            run = build.run(self.connections["owner"], goal, self.run)
            goals.start_branch(self.connections["owner"], self.settings, run, self.base)
        self.model: dict[str, Any] = {
            "run": ["SUBMITTED", False, 0, 0],
            "tasks": {},
            "attempts": {},
            "leases": {},
            "reworks": [],
            "merges": {},
        }
        self.walked: dict[tuple[str, str], str] = {}
        self.history = []

    def task(self) -> str:
        if self.focus:
            return self.focus
        return f"{self.run}-{self.rng.choice(list(TASKS))}"

    def epoch(self, task: str) -> int:
        """Mostly the task run's own epoch, sometimes an older or a newer one."""
        current = self.model["tasks"].get(task, ["", 0])[1]
        return current if self.focus or self.rng.random() < 0.8 else max(0, current + self.rng.choice((-2, -1, -1, 1)))

    def lock(self, connection: Any, task: str) -> None:
        """As every step begins: the row of the task run is made at first sight."""
        tasks.lock(connection, self.run, task.removeprefix(f"{self.run}-"))
        self.model["tasks"].setdefault(task, ["PENDING", 0, False])

    def revoke(self, task: str) -> None:
        for name, lease in self.model["leases"].items():
            if name.rpartition("/")[0] == task and not lease[1]:
                lease[0] = True

    def end_attempt(self, task: str, epoch: int) -> None:
        """The attempt ends once; the class is the service's choice, and the rest follows from it."""
        self.revoke(task)
        mine = self.model["attempts"].get(f"{task}/{epoch}")
        if mine is None or mine[4]:
            return
        row = self.sql("SELECT state, failure, counted, ended_at FROM attempts WHERE task_run = %s AND epoch = %s", task, epoch)[0]
        must(row["ended_at"] is not None and row["state"] in ENDED - {"DONE"}, f"{task}/{epoch} should have ended, and is {row}")
        must(row["counted"] is CLASSES[Failure(row["failure"])].counted, f"{task}/{epoch} counted: {row}")
        mine[0], mine[1], mine[2], mine[4] = row["state"], row["failure"], row["counted"], True

    def counted(self, task: str) -> int:
        return sum(bool(a[2]) for name, a in self.model["attempts"].items() if name.rpartition("/")[0] == task)

    # -- after each step ----------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """The database is the model, and every invariant holds."""
        row = self.sql(SNAPSHOT, *[self.run] * (SNAPSHOT.count("%s") - 1), self.seen)[0]["s"]
        found = {**row, **{part: row[part] or {} for part in ("tasks", "attempts", "leases", "merges")}, "reworks": row["reworks"] or []}
        if sorted(map(str, found["reworks"])) == sorted(map(str, self.model["reworks"])):
            found["reworks"] = self.model["reworks"]
        for part, value in self.model.items():
            must(found[part] == value, f"{part}: the database says\n  {found[part]}\nthe model\n  {value}\nafter {self.history[-6:]}")
        self._invariants(found)
        self._events(row["events"] or [])

    def _invariants(self, found: dict[str, Any]) -> None:
        state, ended, reserved, spent = found["run"]
        must(ended == (state in ENDED_RUNS), f"{state}, and ended is {ended}")
        must(reserved + spent <= BUDGET and min(reserved, spent) >= 0, f"overspent: {reserved} + {spent}")
        must(len(found["reworks"]) == len(set(map(str, found["reworks"]))), "two reworks of one step and epoch")
        for task, (task_state, epoch, merged) in found["tasks"].items():
            must(merged == (task_state == "COMPLETED"), f"{task} is {task_state}, merged: {merged}")
            must(merged == (task in found["merges"]), f"{task} merged without a merge, or the other way round")
            live = [name for name, lease in found["leases"].items() if name.rpartition("/")[0] == task and lease == [False, False]]
            must(live in ([], [f"{task}/{epoch}"]), f"{task} at epoch {epoch} has live leases {live}")
            must(not live or task_state not in (*RESTS, "PENDING_RETRY", "POLICY_CHECK"), f"{task} is {task_state}, and {live} lives")

    def _events(self, events: list[Any]) -> None:
        for self.seen, machine, subject, before, after in events:
            must((machine, before, after) in ALLOWED, f"walked a way that is not there: {machine} {subject} {before} -> {after}")
            was = self.walked.get((machine, subject), "")
            must(was == before, f"{subject} was {was}, its event says {before}")
            self.walked[machine, subject] = after
        for machine, part in (("task_run", "tasks"), ("attempt", "attempts")):
            for name, values in self.model[part].items():
                must(
                    self.walked.get((machine, name)) == values[0],
                    f"{name} is {values[0]}, its events end at {self.walked.get((machine, name))}",
                )

    # -- the walk -----------------------------------------------------------------------------------------------------------

    def next_one(self) -> str:
        """What Airflow and a good worker would do next with some task, so that walks come to merges and landings."""
        open_ones = [task for task in (f"{self.run}-{key}" for key in TASKS) if not self.model["tasks"].get(task, ["", 0, False])[2]]
        if not open_ones:
            return "land"
        self.focus = self.rng.choice(open_ones)
        mine = self.model["tasks"].get(self.focus, ["PENDING", 0, False])
        if mine[0] == "EXECUTING":
            attempt, lease = (self.model[part][f"{self.focus}/{mine[1]}"] for part in ("attempts", "leases"))
            return "look" if lease[1] else "warden ends" if attempt[3] else "completes"
        ways = {"LEASED": "works", "BLOCKED": "works", "VERIFYING": "verified", "MERGE_QUEUE": "merge"}
        return ways.get(mine[0], "admit")

    def walk(self, steps: int, per_run: int = 250) -> None:
        """Random operations, some twice; after each of them ``check``."""
        names = list(self.moves.operations)
        end = self.steps + steps
        while self.steps < end:
            if not self.steps % per_run or not self.history or (self.model["run"][0] == "COMPLETED" and self.rng.random() < 0.2):
                self.begin()
            kind = self.rng.random()
            name = (
                "illegal"
                if kind < self.illegal
                else self.next_one()
                if kind < 0.5
                else self.rng.choices(names, [self.moves.operations[n][1] for n in names])[0]
            )
            step = self.moves.illegal if name == "illegal" else self.moves.operations[name][0](self)
            self.focus = ""
            for _ in range(1 + (self.rng.random() < 0.2)):
                self.history.append(name)
                self.tried[name] = self.tried.get(name, 0) + 1
                before = json.dumps(self.model)
                step(self)
                self.did[name] = self.did.get(name, 0) + (json.dumps(self.model) != before)
                self.check()
                self.steps += 1
