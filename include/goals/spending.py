"""What model calls hold back of a goal run's budget, and what they cost. The caller has locked the goal run (``broker.money``)."""

from __future__ import annotations

from include.database.queries import load
from include.database.unit_of_work import AsyncConnection

_SQL = load(__file__)


async def hold(connection: AsyncConnection, goal_run: str, micro: int) -> None:
    """Hold the worst case of a model call (micro-USD) back."""
    await connection.execute(_SQL.hold, {"goal_run": goal_run, "micro": micro})


async def settle(connection: AsyncConnection, goal_run: str, micro: int, cost: int) -> None:
    """Give the worst case of a model call back and keep what it has cost (micro-USD)."""
    await connection.execute(_SQL.settle, {"goal_run": goal_run, "micro": micro, "cost": cost})
