"""The budgets of all agents at once: for a drill, which pays nobody and settles at its worst case what a dead broker sent."""

from __future__ import annotations

from include.database import queries
from include.database.unit_of_work import Connection

_SQL = queries.load(__file__)


def raise_all(connection: Connection, micro: int) -> None:
    """Give every agent this much a day and a month.

    Args:
        connection: of role ``owner``.
        micro: micro-USD.
    """
    connection.execute(_SQL.raise_budgets, {"micro": micro})
