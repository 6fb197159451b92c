"""What chaos asks the database of its own home. Every question may come while PostgreSQL is down: then ``Unavailable``."""

from __future__ import annotations

from datetime import datetime

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.drills.chaos.models import Event, Overspent, Run, Spent, Stale, Stored, TaskEnd
from include.frozen import Frozen
from include.governance import service as governance

_SQL = load(__file__)


class RunOfKey(Frozen):
    """How far the goal run of a key is."""

    state: str
    reason: str
    ended_at: datetime | None


class Sandbox(Frozen):
    """A started sandbox whose lease holds."""

    lease: str
    sandbox: str


class Failures(Frozen):
    """Attempts that ended alike without a merge."""

    failure: str
    counted: bool | None
    reason: str
    count: int


class EndedBy(Frozen):
    """A sandbox and the reason that it was ended for."""

    sandbox: str
    because: str


def merged(connection: Connection) -> int:
    """Count the tasks that are merged."""
    return int(rows.scalar(connection, _SQL.merged))


def run_of_key(connection: Connection, key: str) -> RunOfKey | None:
    """Read how far the goal run of a key is."""
    return rows.maybe(connection, RunOfKey, _SQL.run_of_key, key=key)


def live_sandboxes(connection: Connection) -> list[Sandbox]:
    """List the started sandboxes whose lease holds."""
    return rows.every(connection, Sandbox, _SQL.live_sandboxes)


def replaced(connection: Connection, lease: str) -> bool:
    """Tell whether the work of a killed sandbox goes on elsewhere, or needs no more."""
    return bool(rows.scalar(connection, _SQL.replaced, lease=lease))


def ends(connection: Connection) -> Stored:
    """Read all that the database says at the end."""
    return Stored(
        runs=tuple(rows.every(connection, Run, _SQL.runs)),
        tasks=tuple(rows.every(connection, TaskEnd, _SQL.tasks)),
        merges=tuple(rows.scalars(connection, _SQL.merges)),
        events=tuple(rows.every(connection, Event, _SQL.events)),
        audit=governance.verify(connection),
        overspent=rows.one(connection, Overspent, _SQL.overspent),
        open_calls=rows.scalar(connection, _SQL.open_calls),
        stale=rows.one(connection, Stale, _SQL.stale),
        failures=tuple(map(_words, rows.every(connection, Failures, _SQL.failures))),
        taken=tuple(f"{each.sandbox}: {each.because}" for each in rows.every(connection, EndedBy, _SQL.taken)),
        spent=rows.one(connection, Spent, _SQL.spent),
    )


def unlanded(connection: Connection) -> list[str]:
    """List the goal branches that did not land."""
    return rows.scalars(connection, _SQL.unlanded)


def _words(found: Failures) -> str:
    counts = "counted" if found.counted else "not counted"
    return f"{found.count} x {found.failure} ({counts}): {found.reason[:200]}"
