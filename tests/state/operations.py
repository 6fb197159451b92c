"""All operations of a walk with their weights, and what the database must refuse at any time."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from include.errors import IllegalTransition
from include.tasks.models import GoalRunState, TaskRunState
from tests.kit import build
from tests.state.ends import cancel_goal, cancel_task, close, land, mark_lease_step, merge, spend, time_passes, verified
from tests.state.work import admit, fail, look, message, warden_ends, warden_starts
from tests.state.world import ALLOWED, Divergence, Moves, World


def illegal(w: World) -> None:
    """By raw SQL, what the database itself must refuse: any state that the table of transitions does not hold, an older epoch, a second live lease."""
    what = w.rng.choice(("task_run", "goal_run", "attempt", "epoch", "lease"))
    if what == "goal_run":
        before = w.model["run"][0]
        target = w.rng.choice([s for s in GoalRunState if (what, before, s) not in ALLOWED and s != before])
        _refused(lambda: w.sql("UPDATE goal_runs SET state = %s WHERE id = %s", target, w.run), IllegalTransition)
        return
    if not w.model["tasks"]:
        return
    task = w.rng.choice(list(w.model["tasks"]))
    state, epoch, _ = w.model["tasks"][task]
    if what == "task_run":
        target = w.rng.choice([s for s in TaskRunState if (what, state, s) not in ALLOWED and s != state])
        merged = "merged_commit = CASE WHEN %s = 'COMPLETED' THEN 'c' END"
        _refused(lambda: w.sql(f"UPDATE task_runs SET state = %s, {merged} WHERE id = %s", target, target, task), IllegalTransition)
    elif what == "epoch":
        _refused(lambda: w.sql("UPDATE task_runs SET epoch = epoch - 1 WHERE id = %s", task), psycopg.errors.DatabaseError)
    elif what == "attempt" and epoch:
        before = w.model["attempts"][f"{task}/{epoch}"][0]
        target = w.rng.choice(
            [s for s in ("SPAWNING", "READY", "DONE", "SPAWN_FAILED") if (what, before, s) not in ALLOWED and s != before] or ["?"]
        )
        _refused(lambda: w.sql("UPDATE attempts SET state = %s WHERE task_run = %s AND epoch = %s", target, task, epoch), IllegalTransition)
    elif what == "lease" and w.model["leases"].get(f"{task}/{epoch}") == [False, False]:
        copy = {"id": "gen_random_uuid()", "sandbox": "t.sandbox || '-x'"}
        newest = f"t.task_run = '{task}' AND t.epoch = {epoch}"
        _refused(lambda: build.twins(w.connections["owner"], "leases", newest, **copy), psycopg.errors.UniqueViolation)


def _refused(act: Callable[[], object], error: type[Exception]) -> None:
    try:
        act()
    except error:
        return
    raise Divergence("the database let through what it must refuse")


OPERATIONS: dict[str, tuple[Callable[[World], Callable[[World], None]], int]] = {
    "admit": (admit, 14), "hello": (message("hello"), 5), "works": (message("works"), 14), "asks": (message("asks"), 4),
    "completes": (message("completes"), 12), "fails": (message("fails"), 2), "warden starts": (warden_starts, 3), "warden ends": (warden_ends, 9),
    "look": (look, 20), "fail": (fail, 12), "verified": (verified, 12), "merge": (merge, 12), "cancel task": (cancel_task, 2),
    "mark lease step": (mark_lease_step, 4), "cancel goal": (cancel_goal, 1), "close": (close, 1), "land": (land, 3), "time passes": (time_passes, 2),
    "spend": (spend, 2),
}  # fmt: skip
MOVES = Moves(OPERATIONS, illegal)
