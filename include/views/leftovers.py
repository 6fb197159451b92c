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


def picture(connection: Connection) -> Leftovers:
    """Count the leases and locks that should be gone, and name the task runs whose streams may be there."""
    counts = rows.one(connection, _Counts, _SQL.leftovers)
    return Leftovers(leases=counts.leases, locks=counts.locks, live_task_runs=frozenset(rows.scalars(connection, _SQL.live_task_runs)))
