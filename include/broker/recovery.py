"""Calls that a dead broker left open: what left is settled at its worst case and never sent again, what did not leave is made anew."""

from __future__ import annotations

from collections.abc import Container
from uuid import UUID

import psycopg

from include.broker import handlers, money, requests
from include.broker.models import OpenCall, Pending
from include.broker.process import log
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.errors import AirlockError

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
            ended += await _end_all(connection, await rows.aevery(connection, OpenCall, _SQL.open_calls_of, agent=agent, dead=other))
    return ended


async def recover_own(connection: AsyncConnection, agent: str, owner: str, under_way: Container[str]) -> int:
    """End the open calls of this process that none of its tasks works on: one that was cancelled, or whose end could not be written.

    Args:
        connection: the open transaction.
        agent: whose calls.
        owner: this process.
        under_way: the requests that are worked on, as they are when it is asked: a call is reserved only while its request is among them.

    Returns:
        How many calls were ended.
    """
    calls = await rows.aevery(connection, OpenCall, _SQL.open_calls_of, agent=agent, dead=owner)
    return await _end_all(connection, [call for call in calls if call.request not in under_way])


async def _end_all(connection: AsyncConnection, calls: list[OpenCall]) -> int:
    for call in calls:
        await (_give_up if call.sent else _release)(connection, call)
    return len(calls)


async def _release(connection: AsyncConnection, call: OpenCall) -> None:
    await money.release(connection, call, call.owner, 0, "its broker ended before it was sent")
    await connection.execute(_SQL.forget_reserved, {"id": call.id})


async def _give_up(connection: AsyncConnection, call: OpenCall) -> None:
    await money.give_up(connection, call, call.owner, call.http_attempts, _STORY)
    try:
        async with connection.transaction():  # one that cannot be told keeps no other call open
            await _tell(connection, call)
    except (ValueError, AirlockError, psycopg.DataError, psycopg.IntegrityError):
        log.exception("who asked for the lost call %s could not be told", call.id)


async def _tell(connection: AsyncConnection, call: OpenCall) -> None:
    pending = await rows.amaybe(connection, Pending, _SQL.message_of, request=call.request)
    if pending is None:
        await requests.lose(connection, UUID(call.request), _STORY)
    else:
        await handlers.lose(connection, call.agent, pending, _STORY)
