"""The audit log: record what decides, verify the chain, show it. Entries are chained by the database when the transaction commits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from include import faults
from include.database import queries, rows
from include.database.queries import load
from include.database.unit_of_work import AsyncConnection, Connection
from include.governance import rules
from include.governance.models import AuditEntry, Chain, Link, LoggedEntry

_SQL = load(__file__)
_BATCH = 2_000


def record(connection: Connection, actor: str, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
    """Append an entry, in the transaction of what it tells of.

    Args:
        actor: a person's Airflow user, or a process.
        action: for example ``goal.cancelled``.
        subject: id of what it was done to.
        detail: what else counts: inputs, rule, policy hash, reason.
    """
    faults.point("audit.append.before")
    connection.execute(_SQL.record, _entry(actor, action, subject, detail))
    faults.point("audit.append.after")


async def record_many(connection: AsyncConnection, entries: list[AuditEntry]) -> None:
    """As ``record``, of many entries in one statement, for asyncio."""
    if entries:
        values = [(*entry[:3], json.dumps(entry.detail)) for entry in entries]
        await connection.execute(_SQL.record_many, queries.columns("actors actions subjects details", values))


def _entry(actor: str, action: str, subject: str, detail: dict[str, Any] | None) -> dict[str, Any]:
    return {"actor": actor, "action": action, "subject": subject, "detail": Jsonb(detail or {})}


def verify(connection: Connection, head: str | None = None) -> Chain:
    """Walk every link of the chain.

    Args:
        head: the head of an earlier walk, kept elsewhere: it must still be in the chain.
    """
    return rules.walk(_links(connection), head)


def _links(connection: Connection) -> Iterator[Link]:
    with connection.cursor(name="audit", row_factory=class_row(Link)) as cursor:
        cursor.itersize = _BATCH
        yield from cursor.execute(_SQL.links)


def newest(connection: Connection, limit: int) -> list[LoggedEntry]:
    """Read the newest entries, the last first."""
    return rows.every(connection, LoggedEntry, _SQL.newest, limit=limit)
