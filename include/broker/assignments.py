"""Assign live leases to their workers, and tell the workers of revoked ones to stop."""

from __future__ import annotations

from math import ceil

from include.broker import conversation
from include.broker.models import AssignedLease, RenewedLease
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection
from include.frozen import Frozen
from include.messages import outbox
from include.messages.models import CapabilityLease, GivenTerms, TaskAssign, TaskCancel
from include.messages.streams import Streams
from include.settings import Settings
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)


class _Revoked(Frozen):
    """A revoked lease whose worker has not been told."""

    task_run: str
    epoch: int
    reason: str


async def to_assign(connection: AsyncConnection, agent: str) -> list[AttemptRef]:
    """Read which attempts of an agent live and have no assignment."""
    return await rows.aevery(connection, AttemptRef, _SQL.to_assign, agent=agent)


async def assign(connection: AsyncConnection, streams: Streams, agent: str, attempt: AttemptRef, settings: Settings) -> bool:
    """Begin the transcript, resume it if the attempt goes on from another, and queue ``task.assign``; False if another replica did."""
    await connection.execute(_SQL.lock_task_run, {"task_run": attempt.task_run})
    lease, task = await conversation.task_of(connection, attempt)
    start = await conversation.beginning(connection, lease, task)
    payload = TaskAssign(
        title=task.title,
        capabilities=lease.capabilities,
        lease=_terms(lease),
        heartbeat_s=settings.heartbeat_s,
        test_timeout_s=settings.test_timeout_s,
        first_turn=start.first_turn,
    )
    if not await outbox.queue(connection, agent, attempt, payload, f"assign:{attempt.task_run}/{attempt.epoch}"):
        return False
    # What an older attempt left in the stream. Nothing of this one can be there: it is sent once this transaction, which holds the lock of
    # the attempt's outbox, is committed. Another replica that comes later finds the key and deletes nothing.
    await streams.delete([attempt.task_run], inbox_only=True)
    await conversation.begin(connection, lease, start)
    return True


async def cancel_revoked(connection: AsyncConnection, agent: str) -> int:
    """Queue ``task.cancel`` once for each revoked lease whose worker was assigned; returns how many."""
    told = 0
    for lease in await rows.aevery(connection, _Revoked, _SQL.to_cancel, agent=agent):
        attempt = AttemptRef(lease.task_run, lease.epoch)
        key = f"cancel:{lease.task_run}/{lease.epoch}"
        told += await outbox.queue(connection, agent, attempt, TaskCancel(reason=lease.reason), key)
    return told


async def tell_renewed(connection: AsyncConnection, agent: str) -> int:
    """Queue ``capability.lease`` once for each time that a live lease was extended and whose worker was assigned; returns how many."""
    told = 0
    for lease in await rows.aevery(connection, RenewedLease, _SQL.renewed, agent=agent):
        payload = CapabilityLease(capabilities=lease.capabilities, lease=_terms(lease))
        told += await outbox.queue(connection, agent, AttemptRef(lease.task_run, lease.epoch), payload, lease.key)
    return told


def _terms(lease: AssignedLease | RenewedLease) -> GivenTerms:
    minutes = max(1, ceil((lease.expires_at - lease.granted_at).total_seconds() / 60))
    return GivenTerms(lease_id=lease.id, expires_at=lease.expires_at, max_tokens=lease.max_tokens, max_duration_minutes=minutes)
