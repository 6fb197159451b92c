"""What people and the audit log are told of a lease: once, in the transaction in which it happened."""

from __future__ import annotations

from datetime import datetime

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.frozen import Frozen
from include.governance import service as governance
from include.leases.models import WorkLease
from include.tasks.models import Failure

_SQL = load(__file__)


class Notice(Frozen):
    """Something that people were told of a goal run."""

    kind: str
    task_run: str | None
    words: str
    created_at: datetime


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
    notice = {
        "key": f"lease:{lease.id}",
        "kind": "incident",
        "goal_run": lease.goal_run,
        "task_run": lease.task_run,
        "words": said,
    }
    if connection.execute(_SQL.store_notice, notice).fetchone() is None:
        return None
    action = "lease.revoked" if failure not in (Failure.LOST, Failure.NEVER_STARTED, Failure.MODEL_AWAY) else "lease.lost"
    governance.record(connection, "lease step", action, lease.sandbox, {"class": failure, "reason": words, "lease": str(lease.id)})
    return said


def notices(connection: Connection, goal_run: str) -> list[Notice]:
    """Read what people were told of a goal run, oldest first."""
    return rows.every(connection, Notice, _SQL.notices_of, goal_run=goal_run)
