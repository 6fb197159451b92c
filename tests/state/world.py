"""A goal run on a real database beside its model in Python: every operation goes to both, and after each of them they must be equal.

Where the services choose (a class of failure, whether there is room), the model takes the answer, checks that it was allowed, and predicts the rest.
"""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.clock import new_id
from include.database.queries import load
from include.errors import IllegalTransition, StaleEpoch
from include.goals import report
from include.goals import service as goals
from include.leases import service as leases
from include.merge import service as merges
from include.settings import Settings
from include.tasks import admission, people, reworks, watching
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, AttemptRef, Failure, GoalRunState, Rework, TaskRunState
from include.tasks.resume import Taken
from include.tasks.reworks import Asker
from include.tasks.rules import CLASSES, ENDED, TRANSITIONS

_MERGES = load(merges.__file__)
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
    """A mirror with one commit, on the branch that every goal run of a walk has."""
    work, mirror = home / "work", home / "mirrors" / "sample.git"
    mirror.parent.mkdir(parents=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "-b", "main", str(work)], ["-C", str(work), *identity, "commit", "-q", "--allow-empty", "-m", "base"],
                    ["clone", "-q", "--bare", str(work), str(mirror)], ["-C", str(mirror), "branch", "airlock/walk", "main"]):  # fmt: skip
        subprocess.run(["git", *command], check=True, capture_output=True)


class World:
    """One goal run, its model, and a seeded walker over both."""

    def __init__(self, settings: Settings, seed: int, illegal: float = 0.05) -> None:
        self.settings, self.rng, self.illegal = settings, random.Random(seed), illegal
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
        goal = new_id()
        self.sql(
            "INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key,"
            " request_sha256, created_by) VALUES (%s, %s, 't', 't', 'sample', 'main', 'jarvis', %s, 3600, 'per_goal', %s, 'h', 'me')",
            goal, self.run, BUDGET, self.run,
        )  # fmt: skip
        self.sql("INSERT INTO plans (goal, revision, sha256, document) VALUES (%s, 1, 'h', %s)", goal, json.dumps(PLAN))
        self.sql(
            "INSERT INTO goal_runs (id, goal, dag_id, run_id, plan, base_commit, goal_branch, budget_micro, deadline_at) SELECT %s, %s, %s, 'r',"
            " max(seq), 'c', 'airlock/walk', %s, clock_timestamp() + interval '1 hour' FROM plans WHERE goal = %s",
            self.run, goal, self.run, BUDGET, goal,
        )  # fmt: skip
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
        names = list(OPERATIONS)
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
                else self.rng.choices(names, [OPERATIONS[n][1] for n in names])[0]
            )
            step = ILLEGAL if name == "illegal" else OPERATIONS[name][0](self)
            self.focus = ""
            for _ in range(1 + (self.rng.random() < 0.2)):
                self.history.append(name)
                self.tried[name] = self.tried.get(name, 0) + 1
                before = json.dumps(self.model)
                step(self)
                self.did[name] = self.did.get(name, 0) + (json.dumps(self.model) != before)
                self.check()
                self.steps += 1


# -- operations: each picks its arguments once, so that a double call is the same call twice ----------------------------------------


def admit(world: World) -> Callable[[World], None]:
    task, ti = world.task(), f"ti-admit-{world.rng.randrange(3)}"
    tries = world.clears[task] = world.clears.get(task, 0) + (world.rng.random() < 0.3)  # a clear raises it, for all later tries
    key = task.removeprefix(f"{world.run}-")

    def step(w: World) -> None:
        def work(connection: Any) -> tuple[str, str]:
            run = goals.lock(connection, w.run, "r")
            knock = admission.Knock(json.dumps(PLAN), key, ti, tries, 0)
            asked = (connection, w.settings, run, knock, lambda: goals.start(connection, w.settings, run))
            said = admission.entry(*asked)
            if said.left is not None:
                said = admission.entry(*asked, taken=Taken(said.left.epoch, None, "refused"))
            return said.outcome, said.words

        if w.rng.random() < 0.8:
            w.sql("UPDATE task_runs SET due_at = NULL WHERE goal_run = %s", w.run)  # time passes
        cleared = tries > w.granted.get(task, 0)
        outcome, words = w.do("airflow", work)
        mine = w.model["tasks"].setdefault(task, ["PENDING", 0, False])
        must((outcome == "merged") == (mine[0] == "COMPLETED"), f"admit said {outcome} of {mine}: {words}")
        if outcome != "admitted" or (mine[0] in LIVE and not cleared):  # granted before; the step died before it could say so
            return
        must(all(w.model["tasks"].get(f"{w.run}-{d}", ["", 0, False])[2] for d in TASKS[key]), f"{task} was let in before what it needs")
        must(cleared or not w.model["run"][1], f"{task} was let into an ended goal run")
        if mine[0] not in ("PENDING", "PENDING_RETRY", "POLICY_CHECK"):
            w.end_attempt(task, mine[1])
        w.granted[task] = tries
        w.model["run"][:2] = ["RUNNING", False]
        w.revoke(task)
        mine[0], mine[1] = "LEASED", mine[1] + 1
        w.model["attempts"][f"{task}/{mine[1]}"] = ["SPAWNING", None, None, False, False]
        w.model["leases"][f"{task}/{mine[1]}"] = [False, False]

    return step


_WORK = {  # what a worker's message does: from these states of the attempt to that one, and the same of the task run
    "hello": (("SPAWNING",), "READY", (), ""),
    "works": (("SPAWNING", "READY", "BLOCKED"), "WORKING", ("LEASED", "BLOCKED"), "EXECUTING"),
    "asks": (("WORKING",), "BLOCKED", ("EXECUTING",), "BLOCKED"),
    "completes": (("READY", "WORKING", "BLOCKED"), "COMPLETING", (), ""),
    "fails": (("SPAWNING", "READY", "WORKING", "BLOCKED"), "FAILED", (), ""),
}


def message(kind: str) -> Callable[[World], Callable[[World], None]]:
    """A worker's message, applied by compare-and-set with the epoch, as the broker does."""
    of_attempt, to, of_task, task_to = _WORK[kind]
    ends = kind in ("completes", "fails")

    def pick(world: World) -> Callable[[World], None]:
        task = world.task()
        epoch = world.epoch(task)

        def step(w: World) -> None:
            def work(connection: Any) -> None:
                live = "EXISTS (SELECT FROM leases l JOIN task_runs t ON t.id = l.task_run AND t.epoch = l.epoch WHERE l.task_run = %(task)s AND l.epoch = %(epoch)s AND l.ended_at IS NULL AND l.revoked_at IS NULL)"
                names = {
                    "task": task,
                    "epoch": epoch,
                    "to": to,
                    "from": list(of_attempt),
                    "task_to": task_to,
                    "task_from": list(of_task),
                    "failure": "worker_failed" if kind == "fails" else None,
                }
                finished = ", finished_at = clock_timestamp(), failure = %(failure)s" if ends else ""
                moved = connection.execute(
                    f"UPDATE attempts SET state = %(to)s{finished} WHERE task_run = %(task)s AND epoch = %(epoch)s AND finished_at IS NULL AND state = ANY(%(from)s) AND {live} RETURNING 1",
                    names,
                ).fetchone()
                if moved and of_task:
                    connection.execute(
                        "UPDATE task_runs SET state = %(task_to)s WHERE id = %(task)s AND epoch = %(epoch)s AND state = ANY(%(task_from)s)",
                        names,
                    )

            w.do("broker", work)
            attempt, lease = w.model["attempts"].get(f"{task}/{epoch}"), w.model["leases"].get(f"{task}/{epoch}")
            if (
                attempt is None
                or w.model["tasks"][task][1] != epoch
                or lease != [False, False]
                or attempt[3]
                or attempt[0] not in of_attempt
            ):
                return
            attempt[0] = to
            if ends:
                attempt[3] = True
                attempt[1] = "worker_failed" if kind == "fails" else None
            if w.model["tasks"][task][0] in of_task:
                w.model["tasks"][task][0] = task_to

        return step

    return pick


def warden_starts(world: World) -> Callable[[World], None]:
    return lambda w: (
        w.sql("UPDATE leases SET started_at = COALESCE(started_at, clock_timestamp()) WHERE goal_run = %s AND ended_at IS NULL", w.run),
        None,
    )[1]


def warden_ends(world: World) -> Callable[[World], None]:
    task, code = world.task(), world.rng.choice((0, 0, 1, 137, 124, None))
    epoch = world.epoch(task)

    def step(w: World) -> None:
        def work(connection: Any) -> None:
            names = {"task": task, "epoch": epoch, "code": code}
            row = connection.execute(
                "SELECT id FROM leases WHERE task_run = %(task)s AND epoch = %(epoch)s AND ended_at IS NULL", names
            ).fetchone()
            if row:
                connection.execute(
                    "INSERT INTO evidence (lease, exit_code, handin_sha256) VALUES (%s, %s, 'h') ON CONFLICT DO NOTHING", [row["id"], code]
                )
                connection.execute("DELETE FROM attempt_keys WHERE lease = %s", [row["id"]])
                connection.execute("UPDATE leases SET ended_at = clock_timestamp() WHERE id = %s", [row["id"]])

        w.do("owner", work)
        if (lease := w.model["leases"].get(f"{task}/{epoch}")) is not None:
            lease[1] = True

    return step


def look(world: World) -> Callable[[World], None]:
    task, ti = world.task(), f"ti-{world.rng.choice(STEPS)}"
    key = task.removeprefix(f"{world.run}-")

    def step(w: World) -> None:
        seen = w.do("airflow", lambda c: watching.look(c, w.settings, w.run, key, watching.Watcher(ti, 0, 30.0)))
        mine = w.model["tasks"].setdefault(task, ["PENDING", 0, False])
        must(seen.epoch == mine[1], f"looked at epoch {seen.epoch} of {mine}")
        if seen.outcome == "handed_in" and mine[0] in LIVE:
            attempt = w.model["attempts"][f"{task}/{mine[1]}"]
            must(attempt[0] == "COMPLETING" and w.model["leases"][f"{task}/{mine[1]}"][1], f"handed in without a hand-in: {attempt}")
            attempt[0], mine[0] = "DONE", "VERIFYING"
        elif seen.outcome == "working" and mine[0] in LIVE:
            broken = w.sql("SELECT broken FROM leases WHERE task_run = %s AND epoch = %s AND kind = 'work'", task, mine[1])[0]["broken"]
            w.model["leases"][f"{task}/{mine[1]}"][0] |= broken is not None  # revoked for a broken term: what follows is decided later
        elif seen.outcome == "rework":
            _reworked(w, task, mine[1], ti, seen.rework)
        elif seen.outcome == "gave_up" and mine[0] in (*LIVE, "PENDING_RETRY"):
            _gave_up(w, task, mine[1], seen.words.partition(":")[0])
        elif seen.outcome == "merged":
            must(mine[0] == "COMPLETED", f"{task} is {mine[0]}, and a look saw it merged")

    return step


def _reworked(w: World, task: str, epoch: int, ti: str, rework: Rework) -> None:
    mine = w.model["tasks"][task]
    must((rework.task_run, rework.epoch, rework.ti_id) == (task, epoch, ti), f"a rework of somebody else: {rework}")
    if [task, epoch, ti] in w.model["reworks"]:
        return  # decided before: the same again
    attempt = w.model["attempts"][f"{task}/{epoch}"]
    already = attempt[4]
    w.end_attempt(task, epoch)
    mine[0] = "PENDING_RETRY"
    w.model["reworks"].append([task, epoch, ti])
    must(
        already or not attempt[2] or w.counted(task) < w.settings.attempts,
        f"{task}: worked again after {w.counted(task)} attempts that counted",
    )


def _gave_up(w: World, task: str, epoch: int, state: str) -> None:
    mine = w.model["tasks"][task]
    if mine[0] in RESTS:
        must(mine[0] == state, f"{task} is {mine[0]}, and a step was told {state}")
        return
    must(state in RESTS, f"{task} gave up as {state}")
    w.end_attempt(task, epoch)
    mine[0] = state
    used_up = w.counted(task) >= w.settings.attempts
    must(state != "FAILED" or used_up, f"{task} FAILED after {w.counted(task)} attempts that counted")


def fail(world: World) -> Callable[[World], None]:
    task, first = world.task(), f"ti-{world.rng.choice(STEPS)}"
    if failed := [name for name, mine in world.model["tasks"].items() if mine[0] in ("VERIFYING", "PENDING_RETRY")]:
        task = world.rng.choice([task, *failed, *failed])
    epoch, failure = (
        world.epoch(task),
        world.rng.choice((Failure.RED, Failure.CONFLICT, Failure.LOST, Failure.BUDGET, Failure.REFUSED_HANDIN, Failure.RED)),
    )

    def step(w: World) -> None:
        ti = first if w.rng.random() < 0.7 else f"ti-{w.rng.choice(STEPS)}"  # the second of two may be another step's
        mine = w.model["tasks"].get(task)
        if mine is None:
            return
        try:
            decided = w.do("airflow", lambda c: reworks.fail_attempt(c, w.settings, Asker(AttemptRef(task, epoch), ti), failure, "because"))
        except StaleEpoch:
            must(mine[1] != epoch, f"{task} is at {mine[1]}, and {epoch} was called stale")
            return
        except IllegalTransition:
            must(mine[0] in ("PENDING", "COMPLETED", "POLICY_CHECK"), f"{task} is {mine[0]}, and its failure was refused")
            return
        must(mine[1] == epoch, f"{task} is at {mine[1]}, and {epoch} changed it")
        if isinstance(decided, Rework):
            _reworked(w, task, epoch, ti, decided)
        else:
            _gave_up(w, task, epoch, decided.state.value)

    return step


def verified(world: World) -> Callable[[World], None]:
    task, moved = world.task(), world.rng.random() < 0.2
    epoch, ti = world.epoch(task), f"ti-{world.rng.choice(STEPS)}"

    def green(connection: Any) -> None:
        tasks.set_state(connection, tasks.lock_attempt(connection, AttemptRef(task, epoch)), TaskRunState.MERGE_QUEUE)

    def step(w: World) -> None:
        mine = w.model["tasks"].get(task)
        if mine is None:
            return
        try:
            if not moved:
                w.do("airflow", green)
            else:
                w.do("airflow", lambda c: reworks.verify_again(c, Asker(AttemptRef(task, epoch), ti), "the target moved"))
        except StaleEpoch:
            must(mine[1] != epoch, f"{epoch} was called stale of {mine}")
        except IllegalTransition:
            must(not moved and mine[0] not in ("VERIFYING", "MERGE_QUEUE"), f"green was refused of {mine}")
        else:
            must(mine[1] == epoch and (moved or mine[0] in ("VERIFYING", "MERGE_QUEUE")), f"{epoch} went on in {mine}")
            if not moved:
                mine[0] = "MERGE_QUEUE"
            elif [task, epoch, ti] not in w.model["reworks"]:
                w.model["reworks"].append([task, epoch, ti])
                mine[0] = "VERIFYING" if mine[0] == "MERGE_QUEUE" else mine[0]

    return step


def merge(world: World) -> Callable[[World], None]:
    task = world.task()
    epoch = world.epoch(task)

    def work(connection: Any) -> None:
        locked = tasks.lock_attempt(connection, AttemptRef(task, epoch))
        verdict = new_id()
        names = {"task_run": task, "epoch": epoch, "target": "refs/heads/x", "commit": "c", "tree": str(verdict), "verdict": verdict}
        connection.execute("INSERT INTO verdicts (id, goal_run, task_run, epoch, tree, suite, facts) VALUES (%s, %s, %s, %s, %s, 'change', '{}')",
                           [verdict, task.rpartition("-")[0], task, epoch, str(verdict)])  # fmt: skip
        connection.execute(_MERGES.insert_merge, names)
        tasks.complete(connection, locked, "c")

    def step(w: World) -> None:
        mine = w.model["tasks"].get(task)
        if mine is None:
            return
        try:
            w.do("airflow", work)
        except StaleEpoch:
            must(mine[1] != epoch, f"{epoch} was called stale of {mine}")
        except psycopg.errors.UniqueViolation:
            must(mine[2], f"a merge was refused, and there was none: {mine}")
        except IllegalTransition:
            must(mine[0] != "MERGE_QUEUE", f"a merge was refused of {mine}")
        else:
            must(mine[:2] == ["MERGE_QUEUE", epoch], f"merged out of {mine}")
            mine[0], mine[2] = "COMPLETED", True
            w.model["merges"][task] = epoch

    return step


def _cancelled(w: World, task: str) -> None:
    mine = w.model["tasks"][task]
    if mine[0] in ("COMPLETED", *RESTS):
        w.revoke(task)
        return
    w.end_attempt(task, mine[1])
    mine[0] = "CANCELLED"


def cancel_task(world: World) -> Callable[[World], None]:
    task = world.task()
    epoch = world.epoch(task)

    def step(w: World) -> None:
        mine = w.model["tasks"].get(task)
        if mine is None:
            return
        try:
            w.do("airflow", lambda c: tasks.cancel(c, tasks.lock_attempt(c, AttemptRef(task, epoch)), "a person"))
        except StaleEpoch:
            must(mine[1] != epoch, f"{epoch} was called stale of {mine}")
        else:
            must(mine[1] == epoch, f"{epoch} cancelled {mine}")
            _cancelled(w, task)

    return step


def mark_lease_step(world: World) -> Callable[[World], None]:
    """A person marks or clears the lease step: Airflow calls on_kill, perhaps late, perhaps of an old task instance."""
    task, ti = world.task(), f"ti-{world.rng.choice(STEPS)}"
    epoch, key = world.epoch(task), task.removeprefix(f"{world.run}-")
    aged = world.rng.random() < 0.8  # else another triggerer has taken the watch over since

    def step(w: World) -> None:
        left_at = w.sql("SELECT clock_timestamp() - make_interval(hours => %s) AS t", 0 if aged else 1)[0]["t"]
        did = w.do("airflow", lambda c: people.end_unwatched(c, tasks.lock(c, w.run, key), ti, epoch, left_at))
        must(aged or not did, "another triggerer has watched since, and was killed all the same")
        mine = w.model["tasks"].setdefault(task, ["PENDING", 0, False])
        if did:
            must(mine[1] == epoch and mine[0] in LIVE, f"on_kill of epoch {epoch} ended {mine}")
            _cancelled(w, task)

    return step


def cancel_goal(world: World) -> Callable[[World], None]:
    def work(connection: Any, w: World) -> None:
        run = goals.lock(connection, w.run, "r")
        if run.state not in ENDED_RUNS:
            for task in tasks.lock_all(connection, w.run):
                tasks.cancel(connection, task, "by a person")
            goals.set_state(connection, run, GoalRunState.CANCELLED, "by a person")
        leases.revoke_goal_run(connection, w.run, "by a person")

    def step(w: World) -> None:
        w.do("cli", lambda c: work(c, w))
        if not w.model["run"][1]:
            for task in w.model["tasks"]:
                _cancelled(w, task)
            w.model["run"][:2] = ["CANCELLED", True]
        for task in w.model["tasks"]:
            w.revoke(task)

    return step


def close(world: World) -> Callable[[World], None]:
    """The report step: whatever happened, everything comes to its end."""

    def step(w: World) -> None:
        w.do("airflow", lambda c: report.close(c, w.run, "r"))
        for task, mine in w.model["tasks"].items():
            w.revoke(task)
            if mine[0] not in ("COMPLETED", *RESTS):
                w.end_attempt(task, mine[1])
                mine[0] = "CANCELLED"
        if not w.model["run"][1]:
            told = w.sql("SELECT state FROM goal_runs WHERE id = %s", w.run)[0]["state"]
            states = {mine[0] for mine in w.model["tasks"].values()}
            must(told in states | {"CANCELLED", "ESCALATED"} and told != "COMPLETED", f"the goal run ended {told}, its tasks {states}")
            w.model["run"][:2] = [told, True]

    return step


def land(world: World) -> Callable[[World], None]:
    def step(w: World) -> None:
        merged = [mine[2] for mine in w.model["tasks"].values()]
        if w.model["run"][0] == "RUNNING" and merged == [True] * len(TASKS):
            w.do("airflow", lambda c: goals.set_state(c, goals.lock(c, w.run, "r"), GoalRunState.LANDING))
            w.model["run"][0] = "LANDING"
        elif w.model["run"][0] == "LANDING":
            w.do("airflow", lambda c: goals.set_state(c, goals.lock(c, w.run, "r"), GoalRunState.COMPLETED))
            w.model["run"][:2] = ["COMPLETED", True]

    return step


def time_passes(world: World) -> Callable[[World], None]:
    column, far = world.rng.choice(("expires_at", "heartbeat_at", "watched_at")), world.rng.choice(("1 second", "1 hour"))
    statement = f"UPDATE leases SET {column} = {column} - interval '{far}' WHERE goal_run = %s AND ended_at IS NULL"
    return lambda w: (w.sql(statement, w.run), None)[1]


def spend(world: World) -> Callable[[World], None]:
    reserved, spent = world.rng.randrange(BUDGET // 4), world.rng.randrange(BUDGET // 40)

    def step(w: World) -> None:
        try:
            w.sql("UPDATE goal_runs SET reserved_micro = %s, spent_micro = spent_micro + %s WHERE id = %s", reserved, spent, w.run)
        except psycopg.errors.CheckViolation:
            must(reserved + w.model["run"][3] + spent > BUDGET, "a sum that fits was refused")
        else:
            w.model["run"][2:] = [reserved, w.model["run"][3] + spent]

    return step


OPERATIONS: dict[str, tuple[Callable[[World], Callable[[World], None]], int]] = {
    "admit": (admit, 14), "hello": (message("hello"), 5), "works": (message("works"), 14), "asks": (message("asks"), 4),
    "completes": (message("completes"), 12), "fails": (message("fails"), 2), "warden starts": (warden_starts, 3), "warden ends": (warden_ends, 9),
    "look": (look, 20), "fail": (fail, 12), "verified": (verified, 12), "merge": (merge, 12), "cancel task": (cancel_task, 2),
    "mark lease step": (mark_lease_step, 4), "cancel goal": (cancel_goal, 1), "close": (close, 1), "land": (land, 3), "time passes": (time_passes, 2),
    "spend": (spend, 2),
}  # fmt: skip


def ILLEGAL(w: World) -> None:
    """By raw SQL, what the database itself must refuse: any state that the table of transitions does not hold, an older epoch, a second live lease."""
    what = w.rng.choice(("task_run", "goal_run", "attempt", "epoch", "lease"))
    if what == "goal_run":
        before = w.model["run"][0]
        target = w.rng.choice([s for s in GoalRunState if (what, before, s) not in ALLOWED and s != before])
        _refused(w, "UPDATE goal_runs SET state = %s WHERE id = %s", [target, w.run], IllegalTransition)
        return
    if not w.model["tasks"]:
        return
    task = w.rng.choice(list(w.model["tasks"]))
    state, epoch, _ = w.model["tasks"][task]
    if what == "task_run":
        target = w.rng.choice([s for s in TaskRunState if (what, state, s) not in ALLOWED and s != state])
        merged = "merged_commit = CASE WHEN %s = 'COMPLETED' THEN 'c' END"
        _refused(w, f"UPDATE task_runs SET state = %s, {merged} WHERE id = %s", [target, target, task], IllegalTransition)
    elif what == "epoch":
        _refused(w, "UPDATE task_runs SET epoch = epoch - 1 WHERE id = %s", [task], psycopg.errors.DatabaseError)
    elif what == "attempt" and epoch:
        before = w.model["attempts"][f"{task}/{epoch}"][0]
        target = w.rng.choice(
            [s for s in ("SPAWNING", "READY", "DONE", "SPAWN_FAILED") if (what, before, s) not in ALLOWED and s != before] or ["?"]
        )
        _refused(w, "UPDATE attempts SET state = %s WHERE task_run = %s AND epoch = %s", [target, task, epoch], IllegalTransition)
    elif what == "lease" and w.model["leases"].get(f"{task}/{epoch}") == [False, False]:
        _refused(w, "INSERT INTO leases (id, kind, sandbox, goal_run, task_run, epoch, node, input_commit, ti_id, expires_at)"
                 " SELECT gen_random_uuid(), kind, sandbox || '-x', goal_run, task_run, epoch, node, input_commit, ti_id, expires_at FROM leases"
                 " WHERE task_run = %s AND epoch = %s", [task, epoch], psycopg.errors.UniqueViolation)  # fmt: skip


def _refused(w: World, statement: str, values: list[Any], error: type[Exception]) -> None:
    try:
        w.sql(statement, *values)
    except error:
        return
    raise Divergence(f"the database let this through: {statement} {values}")
