"""What the warden reads and writes in PostgreSQL. Leases are judged there, on PostgreSQL's clock."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from include.database.queries import load
from include.database.rows import aevery, amaybe, ascalar, maybe, scalars
from include.database.unit_of_work import AsyncConnection, Connection
from include.sandbox.models import Evidence, KeyPair, LeaseRow, Over, ToStart
from include.settings import Settings

_SQL = load(__file__)


async def pulse(connection: AsyncConnection, settings: Settings) -> None:
    """Say that this node's relay answers; a gap of three beats is an outage."""
    await connection.execute(_SQL.pulse, {"node": settings.node, "gap": settings.pulse_gap_s})


async def unended(connection: AsyncConnection, settings: Settings) -> list[LeaseRow]:
    """Read every lease of this node that has not ended."""
    return await aevery(connection, LeaseRow, _SQL.unended, **_of_node(settings, None))


async def find(connection: AsyncConnection, settings: Settings, sandbox: str) -> LeaseRow | None:
    """Read the lease of a sandbox's name that has not ended, or None."""
    return await amaybe(connection, LeaseRow, _SQL.unended, **_of_node(settings, sandbox))


def _of_node(settings: Settings, sandbox: str | None) -> dict[str, Any]:
    return {"node": settings.node, "sandbox": sandbox, "slack": settings.last_line_s}


async def keys(connection: AsyncConnection, lease: UUID) -> KeyPair | None:
    """Read the two keys of an attempt, or None: they are deleted."""
    return await amaybe(connection, KeyPair, _SQL.keys, lease=lease)


async def over(connection: AsyncConnection, node: str, calm_s: float, unwatched_s: float) -> list[Over]:
    """Read what is over on a node: all that its warden may kill."""
    return await aevery(connection, Over, _SQL.over, node=node, calm=calm_s, unwatched=unwatched_s)


async def due_s(connection: AsyncConnection, node: str, calm_s: float, unwatched_s: float) -> float | None:
    """Read in how many seconds something may be over; None: nothing lives."""
    seconds: float | None = await ascalar(connection, _SQL.due, node=node, calm=calm_s, unwatched=unwatched_s)
    return seconds


async def store_evidence(connection: AsyncConnection, lease: UUID, evidence: Evidence) -> None:
    """Store what is known of an ended sandbox; if there is evidence already, that stays."""
    values = {
        "lease": lease,
        "exit_code": evidence.exit.code,
        "out_of_memory": evidence.exit.out_of_memory,
        "log": evidence.log,
        "sha256": evidence.handin.sha256,
        "bytes": evidence.handin.size,
        "refused": evidence.handin.refused,
        "because": evidence.because,
    }
    await connection.execute(_SQL.store_evidence, values)


def sandbox_to_start(connection: Connection, dag_id: str, run_id: str, key: str) -> ToStart | None:
    """Read the sandbox of the current attempt of a task in an Airflow run, if its lease is live."""
    return maybe(connection, ToStart, _SQL.to_start, dag_id=dag_id, run_id=run_id, key=key)


def live_sandboxes(connection: Connection) -> set[str]:
    """Read the names of all sandboxes that may still be there."""
    return set(scalars(connection, _SQL.live_sandboxes))
