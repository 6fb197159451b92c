"""Open a transaction. Only flow steps and process loops do; a service function takes the open connection as its first argument."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from include.errors import IllegalTransition, Unavailable
from include.settings import settings

_AGAIN_S = 0.1
_Result = TypeVar("_Result")
_pools: dict[tuple[int, str], Any] = {}
_keeper: tuple[int, int] | None = None

Connection = psycopg.Connection[dict[str, Any]]
AsyncConnection = psycopg.AsyncConnection[dict[str, Any]]
_kept: dict[str, Connection] = {}


def _translate(error: psycopg.Error) -> Exception:
    if error.sqlstate == "AL001":
        return IllegalTransition(str(error).splitlines()[0])
    if isinstance(error, psycopg.errors.DeadlockDetected | psycopg.errors.SerializationFailure):
        return Unavailable(f"PostgreSQL broke a tie between two transactions ({str(error).splitlines()[0]}); the same again will do.")
    if isinstance(error, psycopg.OperationalError) and (error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))):
        return Unavailable(f"PostgreSQL does not answer ({str(error).strip()}). Look at `./airlock status`, then `./airlock up`.")
    return error


def persist(work: Callable[[], _Result], seconds: float) -> _Result:
    """Repeat work while PostgreSQL or Airflow is out, or broke a deadlock: for actions that no caller retries, such as a person's cancel.

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
        role: ``airflow``, ``broker``, ``warden``, ``gatekeeper``, ``cli``, ``viewer`` or ``owner``.

    Raises:
        Unavailable: PostgreSQL does not answer.
        IllegalTransition: the database refused a change of state.
    """
    try:
        if _keeper == (os.getpid(), threading.get_ident()):
            with _kept_transaction(role) as connection:
                yield connection
        else:
            with psycopg.connect(settings().dsn(role), row_factory=dict_row, connect_timeout=5) as connection:
                yield connection
    except psycopg.Error as error:
        raise _translate(error) from error


@contextmanager
def kept_connections() -> Iterator[None]:
    """Meanwhile, transactions of this thread use one connection a role, one after the other: for a step of Airflow, which opens a dozen.

    A new connection costs both sides 3 ms of processor time each, and on a busy machine much waiting.
    """
    global _keeper
    _keeper = (os.getpid(), threading.get_ident())
    try:
        yield
    finally:
        _keeper = None
        while _kept:
            _kept.popitem()[1].close()


@contextmanager
def _kept_transaction(role: str) -> Iterator[Connection]:
    connection = _kept.pop(role, None)  # not there while it is in use: a transaction inside a transaction gets one of its own
    if connection is not None and select.select([connection], [], [], 0)[0]:  # the server has closed it, or has something else to say
        connection.close()
        connection = None
    connection = connection or psycopg.connect(settings().dsn(role), row_factory=dict_row, connect_timeout=5)
    try:
        yield connection
        connection.commit()
    except BaseException:
        connection.close()
        raise
    if _kept.setdefault(role, connection) is not connection:
        connection.close()


@contextmanager
def listening(role: str, channel: str | None) -> Iterator[Connection]:
    """A connection in which each statement is a transaction, and which is told what comes on a channel: for those who wait.

    Args:
        channel: None: nothing is listened to.

    Raises:
        Unavailable: PostgreSQL does not answer.
    """
    try:
        with psycopg.connect(settings().dsn(role), row_factory=dict_row, connect_timeout=5, autocommit=True) as connection:
            if channel:
                connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
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

    dsn = settings().dsn(role)
    key = (os.getpid(), dsn)  # a forked child must not share its parent's connections, nor another server's be asked for this one's
    if key not in _pools:
        _pools[key] = ConnectionPool(
            dsn,
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
