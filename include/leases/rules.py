"""Which term of a lease is broken, and what the end of a sandbox says. Pure."""

from __future__ import annotations

from typing import NamedTuple

from include.leases.models import WorkLease
from include.tasks.models import Failure


class Broken(NamedTuple):
    """A broken term: its class and a sentence for a person."""

    failure: Failure
    reason: str


def broken_term(lease: WorkLease) -> Broken | None:
    """What a standing says: the class of a broken term, and words for a person.

    Args:
        lease: ``standing`` is PostgreSQL's judgement by its own clock; once the lease step has revoked it, ``broken`` is what it was then.

    Returns:
        None while the lease holds, or when it ended or was revoked for something else.
    """
    return {
        "expired": Broken(Failure.LEASE_BROKEN, "The lease's time is over. Give the task more minutes or make it smaller."),
        "silent": Broken(Failure.LEASE_BROKEN, "No heartbeat came from the worker in time."),
        "tokens": Broken(Failure.BUDGET, f"The attempt used {lease.tokens_used} of {lease.max_tokens} tokens."),
        "usd": Broken(Failure.BUDGET, f"A model call cost ${lease.excess_micro / 1e6:.6f} more than its reserved worst case."),
    }.get(lease.broken or lease.standing or "")


def end_of_sandbox(lease: WorkLease) -> Broken:
    """Why a sandbox ended although its worker never finished.

    Args:
        lease: has ended.
    """
    if lease.started_at is None:
        return Broken(Failure.NEVER_STARTED, "The sandbox never started. Look at the warden's log (`./airlock logs warden`).")
    if lease.out_of_memory:
        return Broken(Failure.WORKER_FAILED, "The worker ran out of memory and was killed.")
    if lease.exit_code == 124:
        return Broken(Failure.LEASE_BROKEN, "The lease's time is over; the sandbox ended itself.")
    if (lease.because or "").startswith("expired"):
        return Broken(Failure.LEASE_BROKEN, "The lease's time is over.")
    if lease.exit_code in (None, 137, 143) or lease.because:
        return Broken(Failure.LOST, f"The sandbox was lost ({lease.because or 'killed from outside'}).")
    return Broken(Failure.WORKER_FAILED, f"The worker ended with exit code {lease.exit_code} before it had finished.")
