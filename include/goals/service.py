"""Goals and their runs: a goal run is one DAG run; whatever started it (a submission, a person, a schedule), it has one row here."""

from __future__ import annotations

import secrets

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound
from include.goals.models import GoalRun, LockedGoalRun, TaskLine, UnfinishedRun
from include.repository import mirror, trees
from include.settings import Settings
from include.tasks.models import ENDED_RUNS, GoalRunState

_SQL = load(__file__)
_OPENS = frozenset({GoalRunState.SUBMITTED, GoalRunState.PLANNING, GoalRunState.LANDING, GoalRunState.FAILED, GoalRunState.ESCALATED,
                    GoalRunState.CANCELLED})  # fmt: skip
"""States from which a goal run is brought to RUNNING when one of its tasks is let in."""


def new_run_id() -> str:
    """Make a fresh id of a goal run: ``g`` and 12 hex digits."""
    return f"g{secrets.token_hex(6)}"


def lock(connection: Connection, dag_id: str, run_id: str) -> LockedGoalRun:
    """Lock the goal run of a DAG run; it is made at first sight, for runs that people or a schedule started in Airflow.

    Raises:
        NotFound: no goal has this DAG.
    """
    run = rows.maybe(connection, LockedGoalRun, f"{_SQL.run} FOR NO KEY UPDATE OF r", dag_id=dag_id, run_id=run_id)
    if run is not None:
        return run
    _make(connection, dag_id, run_id)
    return rows.one(connection, LockedGoalRun, f"{_SQL.run} FOR NO KEY UPDATE OF r", dag_id=dag_id, run_id=run_id)


def ensure(connection: Connection, dag_id: str, run_id: str) -> GoalRun:
    """Make sure that a DAG run has its goal run, and look at it without a lock.

    Raises:
        NotFound: no goal has this DAG.
    """
    run = rows.maybe(connection, GoalRun, _SQL.run, dag_id=dag_id, run_id=run_id)
    if run is not None:
        return run
    _make(connection, dag_id, run_id)
    return rows.one(connection, GoalRun, _SQL.run, dag_id=dag_id, run_id=run_id)


def _make(connection: Connection, dag_id: str, run_id: str) -> None:
    goal = rows.scalar(connection, _SQL.goal_by_dag, dag_id=dag_id)
    if goal is None:
        raise NotFound(f"no goal has the DAG {dag_id}; it may have been made by another installation")
    connection.execute(_SQL.insert_run, {"id": new_run_id(), "goal": goal, "run_id": run_id})


def set_state(connection: Connection, run: LockedGoalRun, state: GoalRunState, reason: str = "") -> None:
    """Move a goal run along one allowed transition.

    Raises:
        IllegalTransition: the database refused it.
    """
    connection.execute(_SQL.set_run_state, {"goal_run": run.id, "state": state, "reason": reason, "ended": state in ENDED_RUNS})


def start(connection: Connection, settings: Settings, run: LockedGoalRun) -> LockedGoalRun:
    """Bring a goal run to RUNNING: the goal branch starts at the base branch as it is now (once), an ended run is opened again.

    Returns:
        The run as it is afterwards.

    Raises:
        BadInput: the repository or branch is gone.
    """
    if run.base_commit is None:
        start_branch(connection, settings, run, fetch_base(connection, settings, run.repository, run.base_branch))
    if run.state in _OPENS:
        set_state(connection, run, GoalRunState.RUNNING)
    return lock(connection, run.dag_id, run.run_id)


def start_branch(connection: Connection, settings: Settings, run: LockedGoalRun, commit: str) -> None:
    """Create the goal branch at a base commit; nothing happens when it is there."""
    repository = mirror.path_of(settings, run.repository)
    trees.move_ref(repository, f"refs/heads/{run.goal_branch}", commit, "0" * 40)
    connection.execute(_SQL.set_base, {"goal_run": run.id, "commit": commit})


def set_landed(connection: Connection, goal_run: str, commit: str | None, note: str) -> None:
    """Remember where a goal run has landed, and what is to be said about it."""
    connection.execute(_SQL.set_landed, {"goal_run": goal_run, "commit": commit, "note": note})


def fetch_base(connection: Connection, settings: Settings, repository: str, branch: str) -> str:
    """Bring a branch of a registered repository into the mirror; returns its commit.

    Raises:
        BadInput: the repository is not registered, is no git repository, or has no such branch.
    """
    path = rows.scalar(connection, _SQL.repository_path, name=repository)
    if path is None:
        raise NotFound(f"repository: {repository!r} is not registered. Register it with `./airlock repo add {repository} PATH`.")
    mirror.ensure_mirror(settings, repository, path)
    return mirror.fetch_base(settings, repository, path, branch)


def plan_of(connection: Connection, goal_run: str) -> str | None:
    """Read the JSON document of the plan that a goal run follows; None: it follows none."""
    document: str | None = rows.scalar(connection, _SQL.plan_of_run, goal_run=goal_run)
    return document


def has_ended(connection: Connection, goal_run: str) -> bool:
    """Say whether a goal run has come to its end; it cannot end while the transaction is open."""
    return rows.scalar(connection, _SQL.run_ended, goal_run=goal_run) is not False


def unfinished(connection: Connection, minutes: int) -> list[UnfinishedRun]:
    """Read the goal runs without an end that were made at least so many minutes ago."""
    return rows.every(connection, UnfinishedRun, _SQL.unfinished, minutes=minutes)


def summary(connection: Connection, goal_run: str) -> list[TaskLine]:
    """Read one line a task run, for the report."""
    return rows.every(connection, TaskLine, _SQL.summary, goal_run=goal_run)
