"""What chaos asks the database of its own home. Every question may come while PostgreSQL is down: then ``Unavailable``."""

from __future__ import annotations

from typing import Any

from include.database.queries import load
from include.database.unit_of_work import Connection
from include.drills.chaos.models import Event, Run, TaskEnd
from include.governance import service as governance

_SQL = load(__file__)


def progress(connection: Connection) -> dict[str, Any]:
    """How many tasks are merged, goals ended, and sandboxes live."""
    return connection.execute(_SQL.progress).fetchone() or {}


def run_of_key(connection: Connection, key: str) -> dict[str, Any] | None:
    """The goal run of a key."""
    return connection.execute(_SQL.run_of_key, {"key": key}).fetchone()


def live_sandboxes(connection: Connection) -> list[dict[str, Any]]:
    """Started sandboxes whose lease holds."""
    return connection.execute(_SQL.live_sandboxes).fetchall()


def replaced(connection: Connection, lease: str) -> bool:
    """Whether the work of a killed sandbox goes on elsewhere, or needs no more."""
    row = connection.execute(_SQL.replaced, {"lease": lease}).fetchone()
    return bool(row and row["done"])


def raise_budgets(connection: Connection, micro: int) -> None:
    """Give every agent this much a day and a month."""
    connection.execute(_SQL.raise_budgets, {"micro": micro})


def ends(connection: Connection) -> dict[str, Any]:
    """All that the database says at the end, as fields of ``Facts``."""
    return {
        "runs": tuple(Run.model_validate(row) for row in _rows(connection, _SQL.runs)),
        "tasks": tuple(TaskEnd.model_validate(row) for row in _rows(connection, _SQL.tasks)),
        "merges": tuple(row["task_run"] for row in _rows(connection, _SQL.merges)),
        "events": tuple(Event.model_validate(row) for row in _rows(connection, _SQL.events)),
        "audit": governance.verify(connection),
        "overspent": dict(_rows(connection, _SQL.overspent)[0]),
        "open_calls": _rows(connection, _SQL.open_calls)[0]["count"],
        "stale": dict(_rows(connection, _SQL.stale)[0]),
        "failures": tuple(_words(row) for row in _rows(connection, _SQL.failures)),
        "taken": tuple(f"{row['sandbox']}: {row['because']}" for row in _rows(connection, _SQL.taken)),
        "spent": dict(_rows(connection, _SQL.spent)[0]),
    }


def unlanded(connection: Connection) -> list[str]:
    """Goal branches that did not land."""
    return [row["goal_branch"] for row in _rows(connection, _SQL.unlanded)]


def _words(row: dict[str, Any]) -> str:
    counts = "counted" if row["counted"] else "not counted"
    return f"{row['count']} x {row['failure']} ({counts}): {row['reason'][:200]}"


def _rows(connection: Connection, statement: str) -> list[dict[str, Any]]:
    return connection.execute(statement).fetchall()
