"""Open a transaction. Only flow steps and process loops do; a service function takes the open connection as its first argument."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from include.errors import IllegalTransition, Unavailable
from include.settings import settings

_AGAIN_S = 0.1
_Result = TypeVar("_Result")
_pools: dict[tuple[int, str], Any] = {}

Connection = psycopg.Connection[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[dict[str, Any]]


def _translate(error: psycopg.Error) -> Exception:
    if error.sqlstate == "AL001":
        return IllegalTransition(str(error).splitlines()[0])
    if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
        return Unavailable(f"PostgreSQL broke a tie between two transactions ({str(error).splitlines()[0]}); the same again will do.")
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))):
        return Unavailable(f"PostgreSQL does not answer ({str(error).strip()}). Look at `./airlock status`, then `./airlock up`.")
    return error


def persist(work: Callable[[], _Result], seconds: float) -> _Result:
    """Do it again while PostgreSQL or Airflow does not answer, or broke a tie: for what nobody does again by itself.

    Args:
        work: opens its transactions itself; done twice it must change nothing more.
        seconds: the last try begins before this.

    Raises:
        Unavailable: of the last try.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return work()
        except Unavailable:
            if time.monotonic() > end:
                raise
        time.sleep(_AGAIN_S)


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


@contextmanager
def pooled_transaction(role: str) -> Iterator[Connection]:
    """As ``transaction``, on a connection that is kept: for processes that ask many times a second (the triggerer).

    Raises:
        Unavailable: PostgreSQL does not answer within 5 s.
    """
    from psycopg_pool import ConnectionPool, PoolTimeout

    key = (os.getpid(), role)  # a forked child must not share its parent's connections
    if key not in _pools:
        _pools[key] = ConnectionPool(
            settings().dsn(role),
            kwargs={"row_factory": dict_row},
            min_size=1,
            max_size=8,
            timeout=5,
            open=True,
            check=ConnectionPool.check_connection,
        )
    try:
        with _pools[key].connection() as connection:
            yield connection
    except PoolTimeout as error:
        raise Unavailable("PostgreSQL does not answer. Look at `./airlock status`, then `./airlock up`.") from error
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
