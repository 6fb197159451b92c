"""Which term of a lease is broken, and what the end of a sandbox says. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from include.tasks.models import Failure


class Broken(NamedTuple):
    """A broken term: its class and a sentence for a person."""

    failure: Failure
    reason: str


def broken_term(lease: dict[str, Any]) -> Broken | None:
    """The first broken term of a live lease.

    Args:
        lease: a row of the query ``work_lease``; ``expired`` and ``silent`` are PostgreSQL's judgement by its own clock.

    Returns:
        None if all terms hold. Tokens and money are also held by the broker, before it spends.
    """
    if lease["expired"]:
        return Broken(Failure.LEASE_BROKEN, "The lease's time is over. Give the task more minutes or make it smaller.")
    if lease["silent"] and lease["started_at"] is not None:
        return Broken(Failure.LEASE_BROKEN, "No heartbeat came from the worker in time.")
    if lease["tokens_used"] > lease["max_tokens"]:
        return Broken(Failure.BUDGET, f"The attempt used {lease['tokens_used']} of {lease['max_tokens']} tokens.")
    return None


def end_of_sandbox(lease: dict[str, Any]) -> Broken:
    """Why a sandbox ended although its worker never finished.

    Args:
        lease: a row of the query ``work_lease`` whose lease has ended.
    """
    if lease["started_at"] is None:
        return Broken(Failure.NEVER_STARTED, "The sandbox never started. Look at the warden's log (`./airlock logs warden`).")
    if lease["out_of_memory"]:
        return Broken(Failure.WORKER_FAILED, "The worker ran out of memory and was killed.")
    if lease["exit_code"] == 124:
        return Broken(Failure.LEASE_BROKEN, "The lease's time is over; the sandbox ended itself.")
    if (lease["because"] or "").startswith("expired"):
        return Broken(Failure.LEASE_BROKEN, "The lease's time is over.")
    if lease["exit_code"] in (None, 137, 143) or lease["because"]:
        return Broken(Failure.LOST, f"The sandbox was lost ({lease['because'] or 'killed from outside'}).")
    return Broken(Failure.WORKER_FAILED, f"The worker ended with exit code {lease['exit_code']} before it had finished.")
