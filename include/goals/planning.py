"""What planning needs of goals: the words that a person wrote, and to write which plan a goal run follows."""

from __future__ import annotations

from uuid import UUID

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection

_SQL = load(__file__)


def text_of(connection: Connection, goal: UUID) -> str:
    """Read what a person wrote. Only planning and workers need it: no look at a goal run drags it along."""
    return str(rows.scalar(connection, _SQL.text_of, goal=goal))


def follow(connection: Connection, goal_run: str, plan: int) -> None:
    """Let a goal run follow a plan.

    Args:
        plan: its number (``plans.seq``).
    """
    connection.execute(_SQL.set_plan, {"goal_run": goal_run, "plan": plan})
