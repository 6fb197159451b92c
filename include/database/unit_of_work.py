"""Open a transaction. Only flow steps and process loops do; a service function takes the open connection as its first argument."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg
from psycopg.rows import dict_row

from include.errors import IllegalTransition, Unavailable
from include.settings import settings

Connection = psycopg.Connection[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[dict[str, Any]]


def _translate(error: psycopg.Error) -> Exception:
    if error.sqlstate == "AL001":
        return IllegalTransition(str(error).splitlines()[0])
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return Unavailable(f"PostgreSQL does not answer ({str(error).strip()}). Look at `./airlock status`, then `./airlock up`.")
    return error


@contextmanager
def transaction(role: str) -> Iterator[Connection]:
    """A connection of one role in one transaction: committed at the end, rolled back by an exception.

    Args:
        role: ``airflow``, ``broker``, ``warden``, ``gatekeeper``, ``cli`` or ``owner``.

    Raises:
        Unavailable: PostgreSQL does not answer.
        IllegalTransition: the database refused a change of state.
    """
    try:
        with psycopg.connect(settings().dsn(role), row_factory=dict_row, connect_timeout=5) as connection:
            yield connection
    except psycopg.Error as error:
        raise _translate(error) from error


@asynccontextmanager
async def async_transaction(role: str) -> AsyncIterator[AsyncConnection]:
    """As ``transaction``, for asyncio."""
    try:
        async with await psycopg.AsyncConnection.connect(settings().dsn(role), row_factory=dict_row, connect_timeout=5) as connection:
            yield connection
    except psycopg.Error as error:
        raise _translate(error) from error
