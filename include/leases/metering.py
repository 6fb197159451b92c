"""What a broker measures of leases: signs of life, and what model calls hold back, cost and use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from include.database import queries
from include.database.unit_of_work import AsyncConnection

_SQL = queries.load(__file__)


class Bill(NamedTuple):
    """What a model call held back and what it has cost, in micro-USD, and the tokens that it used."""

    micro: int
    cost: int
    tokens: int


async def keep_numbers(connection: AsyncConnection, numbers: Iterable[tuple[UUID, int]]) -> None:
    """Write that messages of these numbers are in, for each lease; each is a sign of life."""
    if rows := list(numbers):
        await connection.execute(_SQL.keep_numbers, queries.columns("leases seqs", rows))


async def hold(connection: AsyncConnection, lease: UUID | None, micro: int) -> None:
    """Hold the worst case of a model call back; None: the call is on no lease."""
    if lease is not None:
        await connection.execute(_SQL.hold, {"lease": lease, "micro": micro})


async def settle(connection: AsyncConnection, lease: UUID | None, bill: Bill) -> None:
    """Give the worst case of a model call back and keep what it has cost."""
    if lease is not None:
        await connection.execute(_SQL.settle, bill._asdict() | {"lease": lease})


async def exceed(connection: AsyncConnection, lease: UUID | None, excess: int) -> None:
    """Write that a model call has cost more (micro-USD) than its worst case: that breaks the lease."""
    if lease is not None:
        await connection.execute(_SQL.add_excess, {"lease": lease, "excess": excess})
