"""The merge queue of a goal run: the goal branch moves by compare-and-swap, only to the exact tree that has a green verdict.

The lock is the row of the goal run. A merge by a process which died before it could say so is recognised by history, and recorded.
"""

from __future__ import annotations

from include import faults
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound, Refused
from include.merge.models import LockedRun, Merged
from include.repository import mirror, trees
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import AttemptRef, LockedTaskRun

_SQL = load(__file__)
_SUITES = ["change", "report"]


def candidate_ref(attempt: AttemptRef) -> str:
    """Name the ref in the mirror that holds what an attempt would merge."""
    return f"refs/candidates/{attempt.task_run}/{attempt.epoch}"


def lock_run(connection: Connection, goal_run: str) -> LockedRun:
    """Lock a goal run, with its repository, until the transaction ends.

    Raises:
        NotFound: no such goal run.
    """
    run = rows.maybe(connection, LockedRun, _SQL.lock_run, goal_run=goal_run)
    if run is None:
        raise NotFound(f"goal run {goal_run} does not exist")
    return run


def merge_task(connection: Connection, settings: Settings, attempt: AttemptRef) -> Merged:
    """Move the goal branch to the verified candidate of an attempt, and complete its task run.

    Returns:
        ``merged``; ``already`` (it was merged before, by this or another attempt); ``moved`` (verify again on the new target).

    Raises:
        NotFound: no such task run.
        StaleEpoch: another attempt has taken over.
        Refused: there is no candidate, or no green verdict for exactly its tree.
        IllegalTransition: the task run is not in MERGE_QUEUE.
    """
    owner = rows.scalar(connection, _SQL.run_of_task, task_run=attempt.task_run)
    if owner is None:
        raise NotFound(f"task run {attempt.task_run} does not exist")
    run = lock_run(connection, owner)
    known = rows.scalar(connection, _SQL.merge_of, task_run=attempt.task_run)
    if known is not None:
        return Merged("already", known)
    return _swap(connection, settings, run, tasks.lock_attempt(connection, attempt))


def recognise(connection: Connection, settings: Settings, attempt: AttemptRef) -> bool:
    """Record a merge that a process made and died before it could say so. Nothing is merged here.

    Returns:
        True if there was one: the task run is COMPLETED now.
    """
    owner = rows.scalar(connection, _SQL.run_of_task, task_run=attempt.task_run)
    if owner is None:
        return False
    run = lock_run(connection, owner)
    repository = mirror.path_of(settings, run.repository)
    commit = trees.find(repository, candidate_ref(attempt))
    if commit is None or not trees.is_ancestor(repository, commit, trees.resolve(repository, f"refs/heads/{run.goal_branch}")):
        return False
    return merge_task(connection, settings, attempt).outcome == "already"


def _swap(connection: Connection, settings: Settings, run: LockedRun, task: LockedTaskRun) -> Merged:
    repository, target = mirror.path_of(settings, run.repository), f"refs/heads/{run.goal_branch}"
    commit = trees.find(repository, candidate_ref(task.attempt))
    if commit is None:
        raise Refused(f"task run {task.id} has no candidate for epoch {task.epoch}; clear its verify step in Airflow")
    tree = trees.tree_of(repository, commit)
    asked = {**task.attempt._asdict(), "tree": tree, "suites": _SUITES}
    verdict = rows.scalar(connection, _SQL.green_for_task, **asked)
    if verdict is None:
        raise Refused(f"task run {task.id} has no green verdict for tree {tree[:12]}; clear its verify step in Airflow")
    tip = trees.resolve(repository, target)
    before = trees.is_ancestor(repository, commit, tip)  # moved by a process that died, or there was nothing to merge
    # Recorded first, committed last: the row is refused here, before the ref moves, if the task run is not where it should be.
    if not before and trees.first_parent(repository, commit) != tip:
        return Merged("moved", None)
    connection.execute(_SQL.insert_merge, asked | {"target": target, "commit": commit, "verdict": verdict})
    tasks.complete(connection, task, commit)
    if before:
        return Merged("already", commit)
    faults.point("merge.move.before")
    if trees.move_ref(repository, target, commit, tip):
        faults.point("merge.move.after")
        return Merged("merged", commit)
    raise Refused(f"{target} was moved by something that holds no lock on goal run {run.id}; nothing was merged")
