"""What a warden writes of a lease: its sandbox runs, its sandbox is gone. With the end of an attempt go its keys."""

from __future__ import annotations

from uuid import UUID

from include.database.queries import load
from include.database.unit_of_work import AsyncConnection

_SQL = load(__file__)


async def started(connection: AsyncConnection, lease: UUID) -> None:
    """Store that the sandbox of a lease runs; its worker has the heartbeat timeout for its first word from now on."""
    await connection.execute(_SQL.started, {"lease": lease})


async def ended(connection: AsyncConnection, lease: UUID) -> None:
    """Store that the sandbox of a lease is gone, and delete its keys. Its evidence must be stored before."""
    await connection.execute(_SQL.forget_keys, {"lease": lease})
    await connection.execute(_SQL.ended, {"lease": lease})


async def forget_keys_of_ended(connection: AsyncConnection, node: str) -> int:
    """Delete keys that a warden of this node, killed in between, has left of ended attempts; returns how many there were."""
    return (await connection.execute(_SQL.forget_keys_of_ended, {"node": node})).rowcount
