"""What an operator's commands ask of leases: which are at work, revoke them all, is one still there."""

from __future__ import annotations

from uuid import UUID

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.frozen import Frozen

_SQL = load(__file__)


class AtWork(Frozen):
    """A live lease to work, and the key of its task."""

    id: UUID
    key: str


def at_work(connection: Connection, goal_run: str) -> list[AtWork]:
    """List the live leases to work of a goal run."""
    return rows.every(connection, AtWork, _SQL.at_work, goal_run=goal_run)


def revoke_all(connection: Connection, reason: str) -> list[str]:
    """Revoke every live lease; returns the names of their sandboxes."""
    return rows.scalars(connection, _SQL.revoke_all, reason=reason)


def any_live(connection: Connection) -> bool:
    """Say whether a sandbox is still there, whatever its goal."""
    return bool(rows.scalar(connection, _SQL.any_live))
