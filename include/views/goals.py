"""Show goals: find the run that a person means, list goals, and picture one run. Read as the role ``viewer``, which can write nothing."""

from __future__ import annotations

import difflib

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound
from include.frozen import Frozen
from include.governance import notices
from include.tasks.models import TaskRunState
from include.views.models import GoalHead, GoalLine, GoalOfKey, GoalView, TaskView, VerdictView

_SQL = load(__file__)
_SHORTEST = 4
"""Characters of a name's beginning that are enough to mean it."""


class _Names(Frozen):
    """The names of a goal and of one of its runs, if there is any."""

    goal: str
    dag_id: str
    key: str
    run: str | None


class _Planned(Frozen):
    """A task as the plan names it."""

    key: str
    title: str


class _Begun(Frozen):
    """A task that has a task run."""

    key: str
    state: TaskRunState
    reason: str
    epoch: int
    step: str
    attempt_state: str
    rung: str
    merged_commit: str | None
    spent_micro: int
    tokens: int


def find_run(connection: Connection, word: str) -> str:
    """Find the goal run that a person means: by run, goal, DAG, key, or the beginning of one of them.

    Args:
        word: for example ``g1f0c2a9b77de``, ``goal_sample_019aa3c1`` or the goal's id.

    Returns:
        The id of the run; of a goal its newest run.

    Raises:
        NotFound: nothing is called so, or more than one thing; the message names the nearest.
    """
    named = [(name, row) for row in rows.every(connection, _Names, _SQL.goal_names) for name in row.model_dump().values() if name]
    found = [row for name, row in named if name == word] or [row for name, row in named if len(word) >= _SHORTEST and name.startswith(word)]
    goals = {row.goal for row in found}
    if len(goals) != 1:
        raise NotFound(_not_found(word, [name for name, _ in named], len(goals)))
    if word in {row.run for row in found}:
        return word
    newest = rows.scalar(connection, _SQL.newest_run, goal=goals.pop())
    if newest is None:
        raise NotFound(f"goal: {word!r} has no run yet. Look at `./airlock goal list`.")
    return str(newest)


def _not_found(word: str, names: list[str], count: int) -> str:
    if count > 1:
        return f"goal: {word!r} is the beginning of {count} goals. Write more of it; see `./airlock goal list`."
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else "See `./airlock goal list`."
    return f"goal: {word!r} is not a goal here. {hint}"


def newest(connection: Connection, limit: int = 50) -> list[GoalLine]:
    """List the goals with their newest run, newest first."""
    return rows.every(connection, GoalLine, _SQL.goal_list, limit=limit)


def of_key(connection: Connection, key: str) -> GoalOfKey | None:
    """Find the goal that an idempotency key made; None: it is not taken in yet."""
    return rows.maybe(connection, GoalOfKey, _SQL.goal_by_key, key=key)


def picture(connection: Connection, run: str) -> GoalView:
    """Picture one run with its tasks, verdicts and notices.

    Raises:
        NotFound: no such run.
    """
    head = rows.maybe(connection, GoalHead, _SQL.goal_run, run=run)
    if head is None:
        raise NotFound(f"goal: the run {run!r} does not exist. See `./airlock goal list`.")
    return GoalView(
        **dict(head),
        tasks=_tasks(connection, run),
        verdicts=tuple(rows.every(connection, VerdictView, _SQL.verdicts, run=run)),
        notices=tuple(notices.of_goal_run(connection, run)),
    )


def _tasks(connection: Connection, run: str) -> tuple[TaskView, ...]:
    begun = {task.key: task for task in rows.every(connection, _Begun, _SQL.begun_tasks, run=run)}
    planned = rows.every(connection, _Planned, _SQL.planned_tasks, run=run)
    return tuple(TaskView(**dict(task) | dict(begun.get(task.key, ()))) for task in planned)


def live_sandboxes(connection: Connection, run: str) -> list[str]:
    """List the sandboxes of a goal run that are still there."""
    return rows.scalars(connection, _SQL.live_sandboxes, run=run)
