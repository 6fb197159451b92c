"""Resume: whether the next attempt goes on from a failed one, and what that one left behind: its transcript and what it committed."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from include.catalog import store as catalog
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BundleRefused
from include.frozen import Frozen
from include.plans.models import Plan
from include.repository import mirror, quarantine
from include.settings import Settings
from include.tasks import rules
from include.tasks.models import AttemptRef, LockedTaskRun, TaskRunState

_SQL = load(__file__)


class Left(NamedTuple):
    """What an attempt left behind, for the one that goes on from it."""

    task_run: str
    epoch: int
    lease: UUID
    input_commit: str  # what it began from
    handed_in: bool  # the warden copied a bundle out of its sandbox: what it had committed
    over: bool  # nothing more comes: its sandbox is gone, or the warden had its time for it


class Taken(NamedTuple):
    """The commit of a bundle that was left behind; None: the quarantine refused it, and ``words`` say why."""

    epoch: int
    commit: str | None
    words: str = ""


def source(connection: Connection, attempt: AttemptRef) -> int | None:
    """Find the epoch that the attempt after this one goes on from; None: it starts over."""
    if not _keeps_sessions(connection, attempt.task_run):
        return None
    this = _way(connection, attempt)
    if this is None:
        return None
    return rules.source(this, _way(connection, attempt._replace(epoch=this.resumed_from)) if this.resumed_from else None)


def goes_on_from(connection: Connection, task: LockedTaskRun) -> int | None:
    """Find the epoch that the next attempt of a task run goes on from; None: it starts over.

    Decided when an attempt failed; one that was granted and never said a word leaves what it would have gone on from to the next.
    """
    if task.state is not TaskRunState.LEASED:
        return task.resume_from
    way = _way(connection, task.attempt)
    return way.resumed_from if way else None


def left_behind(connection: Connection, attempt: AttemptRef) -> Left | None:
    """Read what an attempt left behind; None: it had no lease."""
    return rows.maybe(connection, Left, _SQL.left_behind, **attempt._asdict())


def take_in(settings: Settings, repository: str, left: Left) -> Taken:
    """Take the bundle that was left behind through the quarantine, outside of any transaction. Done twice, it recognises the first.

    Args:
        repository: name of the goal's repository.
        left: with ``handed_in``.

    Raises:
        GitFailed: the mirror cannot be read or written.
    """
    handin = settings.handins_dir / str(left.lease)
    where = mirror.path_of(settings, repository)
    try:
        return Taken(left.epoch, quarantine.accept(where, handin, left.input_commit, left.task_run, left.epoch))
    except BundleRefused as error:
        return Taken(left.epoch, None, str(error))


class _Planned(Frozen):
    """The plan that a task run is a part of, and its key in it."""

    key: str
    document: str


def _keeps_sessions(connection: Connection, task_run: str) -> bool:
    planned = rows.maybe(connection, _Planned, _SQL.plan_of, task_run=task_run)
    tasks = Plan.model_validate_json(planned.document).tasks if planned else ()
    worker = next((task.worker for task in tasks if planned and task.key == planned.key), None)
    return worker in catalog.names() and catalog.load(str(worker)).runtime.session_persistence


def _way(connection: Connection, attempt: AttemptRef) -> rules.Way | None:
    return rows.maybe(connection, rules.Way, _SQL.way, **attempt._asdict())
