"""Notices: what people are told of a goal run, each thing once."""

from __future__ import annotations

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import AsyncConnection, Connection
from include.governance.models import Notice, PastNotice

_SQL = load(__file__)


def tell(connection: Connection, notice: Notice) -> bool:
    """Tell people something, in the transaction in which it happened; False: they were told before."""
    return rows.scalar(connection, _SQL.insert_notice, **notice.model_dump()) is not None


async def atell(connection: AsyncConnection, notice: Notice) -> bool:
    """As ``tell``, for asyncio."""
    return await rows.ascalar(connection, _SQL.insert_notice, **notice.model_dump()) is not None


def of_goal_run(connection: Connection, goal_run: str) -> list[PastNotice]:
    """Read what people were told of a goal run, oldest first."""
    return rows.every(connection, PastNotice, _SQL.notices_of, goal_run=goal_run)
