"""What people and the audit log are told of a lease: once, in the transaction in which it happened."""

from __future__ import annotations

from include.database.unit_of_work import Connection
from include.governance import notices
from include.governance import service as governance
from include.governance.models import Notice
from include.leases.models import WorkLease
from include.tasks.models import Failure


def tell(connection: Connection, lease: WorkLease, failure: Failure, words: str) -> str | None:
    """Tell people and the audit log that a term was broken or an attempt was lost.

    Args:
        lease: whose term was broken, or whose attempt was lost.
        failure: its class.
        words: what happened, in a sentence.

    Returns:
        The incident's words, or None: it was told before.
    """
    said = f"{lease.task_run}, attempt {lease.epoch}: {words}"
    notice = Notice(key=f"lease:{lease.id}", kind="incident", goal_run=lease.goal_run, task_run=lease.task_run, words=said)
    if not notices.tell(connection, notice):
        return None
    action = "lease.revoked" if failure not in (Failure.LOST, Failure.NEVER_STARTED, Failure.MODEL_AWAY) else "lease.lost"
    governance.record(connection, "lease step", action, lease.sandbox, {"class": failure, "reason": words, "lease": str(lease.id)})
    return said
