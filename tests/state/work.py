"""Operations of a walk: the life of an attempt, as Airflow's steps, a broker and a warden move it.

Each picks its arguments once, so that a double call is the same call twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from include.errors import IllegalTransition, StaleEpoch
from include.goals import service as goals
from include.tasks import admission, reworks, watching
from include.tasks.models import AttemptRef, Failure, Rework
from include.tasks.resume import Taken
from include.tasks.reworks import Asker
from tests.state.world import LIVE, PLAN, RESTS, STEPS, TASKS, World, must


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
