"""What the warden reads and writes in PostgreSQL. Leases are judged there, on PostgreSQL's clock."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from include.database.queries import load
from include.database.unit_of_work import AsyncConnection, Connection
from include.sandbox.models import Evidence, LeaseRow
from include.settings import Settings

_SQL = load(__file__)


async def register(connection: AsyncConnection, settings: Settings, rung: str, notice: str) -> None:
    """Say what this node offers."""
    await connection.execute(_SQL.register, {"name": settings.node, "capacity": settings.node_capacity, "rung": rung, "notice": notice})


async def beat(connection: AsyncConnection, node: str) -> None:
    """Say that the warden is alive."""
    await connection.execute(_SQL.beat, {"name": node})


async def pulse(connection: AsyncConnection, settings: Settings) -> None:
    """Say that this node's relay answers; a gap of three beats is an outage."""
    await connection.execute(_SQL.pulse, {"node": settings.node, "gap": settings.pulse_gap_s})


async def unended(connection: AsyncConnection, settings: Settings) -> list[LeaseRow]:
    """Every lease of this node that has not ended."""
    cursor = await connection.execute(_SQL.unended, _of_node(settings, None))
    return [LeaseRow.model_validate(row) for row in await cursor.fetchall()]


async def find(connection: AsyncConnection, settings: Settings, sandbox: str) -> LeaseRow | None:
    """The lease of a sandbox's name that has not ended, or None."""
    row = await (await connection.execute(_SQL.unended, _of_node(settings, sandbox))).fetchone()
    return LeaseRow.model_validate(row) if row else None


def _of_node(settings: Settings, sandbox: str | None) -> dict[str, Any]:
    return {"node": settings.node, "sandbox": sandbox, "slack": settings.last_line_s}


async def forget_keys_of_ended(connection: AsyncConnection, node: str) -> int:
    """Delete keys of attempts that have ended; returns how many there were."""
    return (await connection.execute(_SQL.forget_keys_of_ended, {"node": node})).rowcount


async def keys(connection: AsyncConnection, lease: UUID) -> dict[str, str] | None:
    """The two keys of an attempt as they go into ``key.json``, or None."""
    row = await (await connection.execute(_SQL.keys, {"lease": lease})).fetchone()
    return {"inKey": bytes(row["in_key"]).hex(), "outKey": bytes(row["out_key"]).hex()} if row else None


async def started(connection: AsyncConnection, lease: UUID) -> None:
    """The sandbox runs."""
    await connection.execute(_SQL.started, {"lease": lease})


async def over(connection: AsyncConnection, node: str, calm_s: float, unwatched_s: float) -> list[dict[str, Any]]:
    """What is over: rows of ``lease``, ``sandbox``, ``because``."""
    return await (await connection.execute(_SQL.over, {"node": node, "calm": calm_s, "unwatched": unwatched_s})).fetchall()


async def due_s(connection: AsyncConnection, node: str, calm_s: float, unwatched_s: float) -> float | None:
    """Seconds until something may be over; None: nothing lives."""
    row = await (await connection.execute(_SQL.due, {"node": node, "calm": calm_s, "unwatched": unwatched_s})).fetchone()
    return row["seconds"] if row else None


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


async def ended(connection: AsyncConnection, lease: UUID) -> None:
    """The sandbox is gone, and its keys with it."""
    await connection.execute(_SQL.forget_keys, {"lease": lease})
    await connection.execute(_SQL.ended, {"lease": lease})


def sandbox_to_start(connection: Connection, dag_id: str, run_id: str, key: str) -> str | None:
    """The sandbox of the current attempt of a task in an Airflow run, if its lease is live."""
    row = connection.execute(_SQL.to_start, {"dag_id": dag_id, "run_id": run_id, "key": key}).fetchone()
    return str(row["sandbox"]) if row else None


def live_sandboxes(connection: Connection) -> set[str]:
    """Names of all sandboxes that may still be there."""
    return {str(row["sandbox"]) for row in connection.execute(_SQL.live_sandboxes).fetchall()}
