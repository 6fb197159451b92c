"""Operations of a walk: how tasks and goals come to their ends, by a verdict and a merge or by a person; and what passes meanwhile.

Each picks its arguments once, so that a double call is the same call twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from include.clock import new_id
from include.database.queries import load
from include.errors import IllegalTransition, StaleEpoch
from include.goals import report
from include.goals import service as goals
from include.leases import service as leases
from include.merge import service as merges
from include.tasks import people, reworks
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, AttemptRef, GoalRunState, TaskRunState
from include.tasks.reworks import Asker
from tests.state.world import BUDGET, LIVE, RESTS, STEPS, TASKS, World, must

_MERGES = load(merges.__file__)


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
