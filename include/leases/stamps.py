"""Stamp the leases that one triggerer watches, all in one statement a second."""

from __future__ import annotations

from include.database.queries import load
from include.database.unit_of_work import AsyncConnection

_SQL = load(__file__)


async def stamp(connection: AsyncConnection, watched: dict[str, list[str]]) -> None:
    """Say that these leases are watched; one that somebody holds just now is stamped the next time.

    Args:
        watched: columns ``dag_ids``, ``run_ids``, ``keys`` and ``ti_ids``, of the lease steps whose triggers live in this process.
    """
    await connection.execute(_SQL.stamp, watched)
