"""What the command line reads and the little it writes, as the role ``cli``."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadInput, NotFound
from include.leases import incidents

_SQL = load(__file__)
Row = dict[str, Any]


def find_run(connection: Connection, word: str) -> str:
    """The goal run that a person means: by run, goal, DAG, key, or the beginning of one of them.

    Args:
        word: for example ``g1f0c2a9b77de``, ``goal_sample_019aa3c1`` or the goal's id.

    Returns:
        The id of the run; of a goal its newest run.

    Raises:
        NotFound: nothing is called so, or more than one thing; the message names the nearest.
    """
    rows = connection.execute(_SQL.goal_names).fetchall()
    names = {str(row[column]): row for row in rows for column in ("run", "goal", "dag_id", "idempotency_key") if row[column]}
    found = [names[word]] if word in names else [row for name, row in names.items() if len(word) >= 4 and name.startswith(word)]
    goals = {row["goal"] for row in found}
    if len(goals) != 1:
        raise NotFound(_not_found(word, list(names), len(goals)))
    if word in {row["run"] for row in found}:
        return word
    newest = connection.execute(_SQL.newest_run, {"goal": goals.pop()}).fetchone()
    if newest is None:
        raise NotFound(f"goal: {word!r} has no run yet. Look at `./airlock goal list`.")
    return str(newest["id"])


def _not_found(word: str, names: list[str], count: int) -> str:
    if count > 1:
        return f"goal: {word!r} is the beginning of {count} goals. Write more of it; see `./airlock goal list`."
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else "See `./airlock goal list`."
    return f"goal: {word!r} is not a goal here. {hint}"


def goals(connection: Connection, limit: int = 50) -> list[Row]:
    """The goals with their newest run, newest first."""
    return connection.execute(_SQL.goal_list, {"limit": limit}).fetchall()


def goal_of_key(connection: Connection, key: str) -> Row | None:
    """The goal (and its first run) that an idempotency key made; None: not yet."""
    return connection.execute(_SQL.goal_by_key, {"key": key}).fetchone()


def goal_run(connection: Connection, run: str) -> Row:
    """One run: see the query. With ``tasks``, ``verdicts``, ``notices`` and the titles of the plan's tasks.

    Raises:
        NotFound: no such run.
    """
    row = connection.execute(_SQL.goal_run, {"run": run}).fetchone()
    if row is None:
        raise NotFound(f"goal: the run {run!r} does not exist. See `./airlock goal list`.")
    plan = connection.execute(_SQL.plan_of_run, {"run": run}).fetchone()
    tasks = {task["key"]: task for task in connection.execute(_SQL.task_rows, {"run": run}).fetchall()}
    planned = json.loads(plan["document"])["tasks"] if plan else []
    row["tasks"] = [{"title": task["title"], **(tasks.get(task["key"]) or _not_begun(task["key"]))} for task in planned]
    row["verdicts"] = connection.execute(_SQL.verdicts, {"run": run}).fetchall()
    row["notices"] = incidents.notices(connection, run)
    return row


def _not_begun(key: str) -> Row:
    return {"task_run": None, "key": key, "state": "PENDING", "reason": "", "epoch": 0, "merged_commit": None, "spent_micro": 0, "step": "",
            "attempt_state": "", "rung": "", "tokens": 0}  # fmt: skip


def repositories(connection: Connection) -> list[Row]:
    """All registered folders."""
    return connection.execute(_SQL.repositories).fetchall()


def repository(connection: Connection, word: str) -> Row | None:
    """A repository by its name or its absolute path."""
    return connection.execute(_SQL.repository_by, {"word": word}).fetchone()


def add_repository(connection: Connection, name: str, path: Path, listed: bool) -> Row:
    """Register a folder under a name.

    Raises:
        BadInput: the name stands for another folder, or the folder has another name.
    """
    connection.execute(_SQL.add_repository, {"name": name, "path": str(path), "listed": listed})
    row = repository(connection, str(path))
    if row is None:
        raise BadInput("name", f"{name!r} stands for another folder", "Choose another name; see `./airlock repo list`.")
    if listed:
        if row["name"] != name:
            raise BadInput(
                "name", f"{path} is already registered as {row['name']!r}", f"Use that name: it was made known with `--repo {path}`."
            )
        connection.execute(_SQL.list_repository, {"name": name})
    return row


def agents(connection: Connection) -> list[str]:
    """The names of all agents."""
    return [row["name"] for row in connection.execute(_SQL.agent_names)]


def leftovers(connection: Connection) -> Row:
    """Counts of leases and locks that should be gone; with the task runs whose streams may live."""
    row = connection.execute(_SQL.leftover_rows).fetchone()
    assert row is not None
    return {**row, "task_runs": {live["id"] for live in connection.execute(_SQL.live_streams)}}


def live_leases(connection: Connection, run: str) -> list[str]:
    """The sandboxes of a goal run that are still there."""
    return [row["sandbox"] for row in connection.execute(_SQL.live_leases, {"run": run})]


def work_leases(connection: Connection, run: str) -> list[Row]:
    """The live leases to work of a run: id and the task's key."""
    return connection.execute(_SQL.work_leases, {"run": run}).fetchall()
