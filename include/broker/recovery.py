"""Calls that a dead broker left open: what left is settled at its worst case and never sent again, what did not leave is made anew."""

from __future__ import annotations

from uuid import UUID

from include.broker import handlers, money, requests
from include.broker.models import OpenCall, Pending
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection

_SQL = queries.load(__file__)
_STORY = "The broker ended while this model call was under way. It is booked at its worst case and not repeated."


async def recover(connection: AsyncConnection, agent: str, owner: str) -> int:
    """End the open calls of this agent's dead owners in the open transaction.

    Args:
        connection: the open transaction.
        agent: whose calls.
        owner: this process (alive).

    Returns:
        How many calls were ended.
    """
    ended = 0
    for other in await rows.ascalars(connection, _SQL.owners_of_open_calls, agent=agent, owner=owner):
        if await rows.ascalar(connection, _SQL.owner_is_dead, owner=other):
            calls = await rows.aevery(connection, OpenCall, _SQL.open_calls_of, agent=agent, dead=other)
            for call in calls:
                await (_give_up if call.sent else _release)(connection, call)
            ended += len(calls)
    return ended


async def _release(connection: AsyncConnection, call: OpenCall) -> None:
    await money.release(connection, call, call.owner, 0, "its broker ended before it was sent")
    await connection.execute(_SQL.forget_reserved, {"id": call.id})


async def _give_up(connection: AsyncConnection, call: OpenCall) -> None:
    await money.give_up(connection, call, call.owner, call.http_attempts, _STORY)
    pending = await rows.amaybe(connection, Pending, _SQL.message_of, request=call.request)
    if pending is None:
        await requests.lose(connection, UUID(call.request), _STORY)
    else:
        await handlers.lose(connection, call.agent, pending, _STORY)
