"""The merge queue of a goal run: the goal branch moves by compare-and-swap, only to the exact tree that has a green verdict.

The lock is the row of the goal run. A merge by a process which died before it could say so is recognised by history, and recorded.
"""

from __future__ import annotations

from typing import Any

from include import faults
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound, Refused, StaleEpoch
from include.merge.models import Merged
from include.repository import mirror, trees
from include.settings import Settings

_SQL = load(__file__)
_SUITES = ["change", "report"]


def candidate_ref(task_run: str, epoch: int) -> str:
    """The ref in the mirror that holds what an attempt would merge."""
    return f"refs/candidates/{task_run}/{epoch}"


def lock_run(connection: Connection, goal_run: str) -> dict[str, Any]:
    """A goal run with its repository, locked until the transaction ends.

    Raises:
        NotFound: no such goal run.
    """
    row = connection.execute(_SQL.lock_run, {"goal_run": goal_run}).fetchone()
    if row is None:
        raise NotFound(f"goal run {goal_run} does not exist")
    return row


def merge_task(connection: Connection, settings: Settings, task_run: str, epoch: int) -> Merged:
    """Move the goal branch to the verified candidate of an attempt, and complete its task run.

    Returns:
        ``merged``; ``already`` (it was merged before, by this or another attempt); ``moved`` (verify again on the new target).

    Raises:
        NotFound: no such task run.
        StaleEpoch: another attempt has taken over.
        Refused: there is no candidate, or no green verdict for exactly its tree.
        IllegalTransition: the task run is not in MERGE_QUEUE.
    """
    owner = connection.execute(_SQL.run_of_task, {"task_run": task_run}).fetchone()
    if owner is None:
        raise NotFound(f"task run {task_run} does not exist")
    run = lock_run(connection, owner["goal_run"])
    known = connection.execute(_SQL.merge_of, {"task_run": task_run}).fetchone()
    if known is not None:
        return Merged("already", known["commit_id"])
    row = connection.execute(_SQL.lock_task, {"task_run": task_run}).fetchone()
    if row is None or row["epoch"] != epoch:
        raise StaleEpoch(f"task run {task_run} is not at epoch {epoch} any more; nothing was merged")
    return _swap(connection, settings, run, task_run, epoch)


def recognise(connection: Connection, settings: Settings, task_run: str, epoch: int) -> bool:
    """Record a merge that a process made and died before it could say so. Nothing is merged here.

    Returns:
        True if there was one: the task run is COMPLETED now.
    """
    owner = connection.execute(_SQL.run_of_task, {"task_run": task_run}).fetchone()
    if owner is None:
        return False
    run = lock_run(connection, owner["goal_run"])
    repository = mirror.path_of(settings, run["repository"])
    commit = trees.find(repository, candidate_ref(task_run, epoch))
    if commit is None or not trees.is_ancestor(repository, commit, trees.resolve(repository, f"refs/heads/{run['goal_branch']}")):
        return False
    return merge_task(connection, settings, task_run, epoch).outcome == "already"


def _swap(connection: Connection, settings: Settings, run: dict[str, Any], task_run: str, epoch: int) -> Merged:
    repository, target = mirror.path_of(settings, run["repository"]), f"refs/heads/{run['goal_branch']}"
    commit = trees.find(repository, candidate_ref(task_run, epoch))
    if commit is None:
        raise Refused(f"task run {task_run} has no candidate for epoch {epoch}; clear its verify step in Airflow")
    tree = trees.tree_of(repository, commit)
    asked = {"task_run": task_run, "epoch": epoch, "tree": tree, "suites": _SUITES}
    verdict = connection.execute(_SQL.green_for_task, asked).fetchone()
    if verdict is None:
        raise Refused(f"task run {task_run} has no green verdict for tree {tree[:12]}; clear its verify step in Airflow")
    tip = trees.resolve(repository, target)
    before = trees.is_ancestor(repository, commit, tip)  # moved by a process that died, or there was nothing to merge
    # Recorded first, committed last: the row is refused here, before the ref moves, if the task run is not where it should be.
    values = asked | {"target": target, "commit": commit, "verdict": verdict["id"]}
    if not before and trees.first_parent(repository, commit) != tip:
        return Merged("moved", None)
    connection.execute(_SQL.insert_merge, values)
    connection.execute(_SQL.complete_task, values)
    if before:
        return Merged("already", commit)
    faults.point("merge.move.before")
    if trees.move_ref(repository, target, commit, tip):
        faults.point("merge.move.after")
        return Merged("merged", commit)
    raise Refused(f"{target} was moved by something that holds no lock on goal run {run['id']}; nothing was merged")
