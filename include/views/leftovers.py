"""Show what was left behind. Read as the role ``viewer``, which can write nothing."""

from __future__ import annotations

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.frozen import Frozen
from include.views.models import Leftovers

_SQL = load(__file__)


class _Counts(Frozen):
    leases: int
    locks: int
    reservations: int


def picture(connection: Connection, call_s: float) -> Leftovers:
    """Count the leases, locks and reservations that should be gone, and name the task runs whose streams may be there.

    Args:
        call_s: the longest that a model call may take; a reservation that is older has no call under way.
    """
    counts = rows.one(connection, _Counts, _SQL.leftovers, call_s=call_s)
    return Leftovers(**dict(counts), live_task_runs=frozenset(rows.scalars(connection, _SQL.live_task_runs)))
