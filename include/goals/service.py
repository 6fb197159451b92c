"""Goals and their runs: a goal run is one DAG run; whatever started it (a submission, a person, a schedule), it has one row here."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID

from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import NotFound
from include.repository import mirror, trees
from include.repository import service as repositories
from include.settings import Settings
from include.tasks.models import ENDED_RUNS, GoalRunState

_SQL = load(__file__)


def new_run_id() -> str:
    """A fresh id of a goal run: ``g`` and 12 hex digits."""
    return f"g{secrets.token_hex(6)}"


def run_of(connection: Connection, dag_id: str, run_id: str, lock: bool = True) -> dict[str, Any]:
    """The goal run of a DAG run, locked; made at first sight, for runs that people or a schedule started in Airflow.

    Args:
        lock: False for a look that changes nothing of the goal run.

    Returns:
        The row of ``goal_runs`` with the goal's title, repository, base_branch, agent, landing, goal_text, and ``late``, ``left_micro``,
        ``seconds_left``.

    Raises:
        NotFound: no goal has this DAG.
    """
    statement = f"{_SQL.run} FOR NO KEY UPDATE OF r" if lock else _SQL.run
    row = connection.execute(statement, {"dag_id": dag_id, "run_id": run_id}).fetchone()
    if row is None:
        goal = connection.execute(_SQL.goal_by_dag, {"dag_id": dag_id}).fetchone()
        if goal is None:
            raise NotFound(f"no goal has the DAG {dag_id}; it may have been made by another installation")
        connection.execute(_SQL.insert_run, {"id": new_run_id(), "goal": goal["id"], "run_id": run_id})
        row = connection.execute(statement, {"dag_id": dag_id, "run_id": run_id}).fetchone()
        assert row is not None
    return row


def set_state(connection: Connection, goal_run: str, state: GoalRunState, reason: str = "") -> None:
    """Move a goal run along one allowed transition.

    Raises:
        IllegalTransition: the database refused it.
    """
    connection.execute(_SQL.set_run_state, {"goal_run": goal_run, "state": state, "reason": reason, "ended": state in ENDED_RUNS})


def start(connection: Connection, settings: Settings, run: dict[str, Any]) -> dict[str, Any]:
    """Bring a goal run to RUNNING: the goal branch starts at the base branch as it is now (once), an ended run is opened again.

    Args:
        run: from ``run_of``.

    Returns:
        The row as it is afterwards.

    Raises:
        BadInput: the repository or branch is gone.
    """
    if run["base_commit"] is None:
        commit = fetch_base(connection, settings, run["repository"], run["base_branch"])
        start_branch(connection, settings, run, commit)
    if run["state"] in (
        GoalRunState.SUBMITTED,
        GoalRunState.PLANNING,
        GoalRunState.FAILED,
        GoalRunState.ESCALATED,
        GoalRunState.CANCELLED,
        GoalRunState.LANDING,
    ):
        set_state(connection, run["id"], GoalRunState.RUNNING)
    return run_of(connection, run["dag_id"], run["run_id"])


def start_branch(connection: Connection, settings: Settings, run: dict[str, Any], commit: str) -> None:
    """Create the goal branch at a base commit; nothing happens when it is there."""
    repository = mirror.path_of(settings, run["repository"])
    trees.move_ref(repository, f"refs/heads/{run['goal_branch']}", commit, "0" * 40)
    connection.execute(_SQL.set_base, {"goal_run": run["id"], "commit": commit})


def fetch_base(connection: Connection, settings: Settings, repository: str, branch: str) -> str:
    """Bring a branch of a registered repository into the mirror; returns its commit.

    Raises:
        BadInput: the repository is not registered, is no git repository, or has no such branch.
    """
    known = repositories.named(connection, repository)
    if known is None:
        raise NotFound(f"repository: {repository!r} is not registered. Register it with `./airlock repo add {repository} PATH`.")
    mirror.ensure_mirror(settings, repository, known.path)
    return mirror.fetch_base(settings, repository, known.path, branch)


def plan_of(connection: Connection, goal_run: str) -> str | None:
    """The JSON document of the plan that a goal run follows, or None."""
    row = connection.execute(_SQL.plan_of_run, {"goal_run": goal_run}).fetchone()
    return row["document"] if row else None


def has_ended(connection: Connection, goal_run: str) -> bool:
    """Whether a goal run has come to its end; it cannot end while the transaction is open."""
    row = connection.execute(_SQL.run_ended, {"goal_run": goal_run}).fetchone()
    return row is None or bool(row["ended"])


def unfinished(connection: Connection, minutes: int) -> list[dict[str, Any]]:
    """Goal runs without an end that were made at least so many minutes ago: id, dag_id, run_id, state, and the submission's key."""
    return connection.execute(_SQL.unfinished, {"minutes": minutes}).fetchall()


def summary(connection: Connection, goal_run: str) -> list[dict[str, Any]]:
    """One row a task run: key, state, reason, epoch, merged_commit, spent_micro, attempts, tokens."""
    return connection.execute(_SQL.summary, {"goal_run": goal_run}).fetchall()


def goal_of(connection: Connection, goal: UUID) -> dict[str, Any]:
    """One goal's row.

    Raises:
        NotFound: no such goal.
    """
    row = connection.execute(_SQL.goal, {"goal": goal}).fetchone()
    if row is None:
        raise NotFound(f"goal {goal} does not exist")
    return row
