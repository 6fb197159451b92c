"""Assign live leases to their workers, and tell the workers of revoked ones to stop."""

from __future__ import annotations

from math import ceil
from typing import Any

from include.broker import conversation
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.messages import outbox
from include.messages.models import CapabilityLease, LeaseTerms, TaskAssign, TaskCancel
from include.messages.streams import Streams
from include.settings import Settings

_SQL = queries.load(__file__)
TEST_TIMEOUT_S = 300
"""Longest test run inside a worker's sandbox, unless the lease's spec says otherwise."""


async def to_assign(connection: AsyncConnection, agent: str) -> list[tuple[str, int]]:
    """Attempts (task run, epoch) that live and have no assignment."""
    rows = await (await connection.execute(_SQL.to_assign, {"agent": agent})).fetchall()
    return [(row["task_run"], row["epoch"]) for row in rows]


async def assign(connection: AsyncConnection, streams: Streams, agent: str, task_run: str, epoch: int, settings: Settings) -> bool:
    """Begin the transcript, resume it if the attempt goes on from another, and queue ``task.assign``; False if another replica did."""
    await connection.execute(_SQL.lock_task_run, {"task_run": task_run})
    row, task = await conversation.task_of(connection, task_run, epoch)
    start = await conversation.beginning(connection, row, task)
    payload = TaskAssign(
        title=task.title,
        capabilities=row["capabilities"],
        lease=_terms(row),
        heartbeat_s=settings.heartbeat_s,
        test_timeout_s=int(row["spec"].get("test_timeout_s", TEST_TIMEOUT_S)),
        first_turn=start.first_turn,
    )
    if not await outbox.queue(connection, agent, task_run, epoch, payload, f"assign:{task_run}/{epoch}"):
        return False
    # What an older attempt left in the stream. Nothing of this one can be there: it is sent once this transaction, which holds the lock of
    # the attempt's outbox, is committed. Another replica that comes later finds the key and deletes nothing.
    await streams.delete([task_run], inbox_only=True)
    await conversation.begin(connection, row, start)
    return True


async def cancel_revoked(connection: AsyncConnection, agent: str) -> int:
    """Queue ``task.cancel`` once for each revoked lease whose worker was assigned; returns how many."""
    rows = await (await connection.execute(_SQL.to_cancel, {"agent": agent})).fetchall()
    told = 0
    for row in rows:
        key = f"cancel:{row['task_run']}/{row['epoch']}"
        told += await outbox.queue(connection, agent, row["task_run"], row["epoch"], TaskCancel(reason=row["reason"]), key)
    return told


async def tell_renewed(connection: AsyncConnection, agent: str) -> int:
    """Queue ``capability.lease`` once for each time that a live lease was extended and whose worker was assigned; returns how many."""
    rows = await (await connection.execute(_SQL.renewed, {"agent": agent})).fetchall()
    told = 0
    for row in rows:
        payload = CapabilityLease(capabilities=row["capabilities"], lease=_terms(row))
        told += await outbox.queue(connection, agent, row["task_run"], row["epoch"], payload, row["key"])
    return told


def _terms(row: dict[str, Any]) -> LeaseTerms:
    minutes = max(1, ceil((row["expires_at"] - row["granted_at"]).total_seconds() / 60))
    return LeaseTerms(lease_id=row["lease"], expires_at=row["expires_at"], max_tokens=row["max_tokens"], max_duration_minutes=minutes)
