"""What people and the audit log are told of a lease: once, in the transaction in which it happened."""

from __future__ import annotations

from typing import Any

from include.database.queries import load
from include.database.unit_of_work import Connection
from include.governance import service as governance
from include.tasks.models import Failure

_SQL = load(__file__)


def tell(connection: Connection, lease: dict[str, Any], failure: Failure, words: str) -> str | None:
    """A term was broken or an attempt was lost: an incident, and an entry of the audit log.

    Args:
        lease: a row of ``leases``.
        failure: its class.
        words: what happened, in a sentence.

    Returns:
        The incident's words, or None: it was told before.
    """
    said = f"{lease['task_run']}, attempt {lease['epoch']}: {words}"
    notice = {
        "key": f"lease:{lease['id']}",
        "kind": "incident",
        "goal_run": lease["goal_run"],
        "task_run": lease["task_run"],
        "words": said,
    }
    if connection.execute(_SQL.store_notice, notice).fetchone() is None:
        return None
    action = "lease.revoked" if failure not in (Failure.LOST, Failure.NEVER_STARTED, Failure.MODEL_AWAY) else "lease.lost"
    governance.record(connection, "lease step", action, lease["sandbox"], {"class": failure, "reason": words, "lease": str(lease["id"])})
    return said


def notices(connection: Connection, goal_run: str) -> list[dict[str, Any]]:
    """What people were told of a goal run, oldest first: kind, task_run, words, created_at."""
    return connection.execute(_SQL.notices_of, {"goal_run": goal_run}).fetchall()
