"""Read rows as frozen types: each statement names a model of exactly the columns that its reader needs.

A statement that returns another set of columns than the model has is an error at once, not a missing key later.
"""

from __future__ import annotations

from typing import Any, TypeVar

from psycopg.rows import class_row, scalar_row

from include.database.unit_of_work import AsyncConnection, Connection

T = TypeVar("T")


def every(connection: Connection, model: type[T], statement: str, **values: Any) -> list[T]:
    """Read all rows that a statement returns.

    Args:
        model: made of each row, its fields are the statement's columns.
        statement: of a room's ``queries.sql``.
        values: what its parameters stand for.
    """
    return connection.cursor(row_factory=class_row(model)).execute(statement.encode(), values).fetchall()


def maybe(connection: Connection, model: type[T], statement: str, **values: Any) -> T | None:
    """Read the first row that a statement returns; None: it returns none. Parameters as in ``every``."""
    return connection.cursor(row_factory=class_row(model)).execute(statement.encode(), values).fetchone()


def one(connection: Connection, model: type[T], statement: str, **values: Any) -> T:
    """Read the first row of a statement that always returns one. Parameters as in ``every``."""
    row = maybe(connection, model, statement, **values)
    assert row is not None, f"no row: {statement[:80]}"
    return row


def scalars(connection: Connection, statement: str, **values: Any) -> list[Any]:
    """Read the first column of all rows."""
    return connection.cursor(row_factory=scalar_row).execute(statement.encode(), values).fetchall()


def scalar(connection: Connection, statement: str, **values: Any) -> Any:
    """Read the first column of the first row; None: there is no row."""
    return connection.cursor(row_factory=scalar_row).execute(statement.encode(), values).fetchone()


async def aevery(connection: AsyncConnection, model: type[T], statement: str, **values: Any) -> list[T]:
    """As ``every``, for asyncio."""
    return await (await connection.cursor(row_factory=class_row(model)).execute(statement.encode(), values)).fetchall()


async def amaybe(connection: AsyncConnection, model: type[T], statement: str, **values: Any) -> T | None:
    """As ``maybe``, for asyncio."""
    return await (await connection.cursor(row_factory=class_row(model)).execute(statement.encode(), values)).fetchone()


async def aone(connection: AsyncConnection, model: type[T], statement: str, **values: Any) -> T:
    """As ``one``, for asyncio."""
    row = await amaybe(connection, model, statement, **values)
    assert row is not None, f"no row: {statement[:80]}"
    return row


async def ascalars(connection: AsyncConnection, statement: str, **values: Any) -> list[Any]:
    """As ``scalars``, for asyncio."""
    return await (await connection.cursor(row_factory=scalar_row).execute(statement.encode(), values)).fetchall()


async def ascalar(connection: AsyncConnection, statement: str, **values: Any) -> Any:
    """As ``scalar``, for asyncio."""
    return await (await connection.cursor(row_factory=scalar_row).execute(statement.encode(), values)).fetchone()
