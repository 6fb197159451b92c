"""Carry out an operator's commands: each asks whether the operator may, does it, and writes it into the audit log.

Command line, pages and chat are skins on these. No room calls them: they stand above all rooms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from include.airflow_api.client import Airflow
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection, persist
from include.errors import BadInput, NotFound, Refused
from include.frozen import Frozen
from include.goals import pruning, rules
from include.goals import service as goals
from include.goals.pruning import Transact
from include.governance import service as audit
from include.governance.models import Command, Extended, GoalCancelled, Operator
from include.governance.rules import may
from include.leases import operators
from include.leases import service as leases
from include.repository import service as repositories
from include.repository.models import Registered
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, GoalRunState

_SQL = load(__file__)
MOST_MINUTES = 60 * 24 * 365
"""Whoever gives a lease more time than this is mistaken; the goal's deadline bounds it anyhow."""


class Reach(NamedTuple):
    """What a command works with that is larger than one transaction: runs work in one of its own each, and Airflow."""

    transact: Transact
    airflow: Airflow


class _Names(Frozen):
    """What names a goal run in Airflow, and by its key its submission."""

    dag_id: str
    run_id: str
    key: str


def cancel(reach: Reach, operator: Operator, run: str, patience_s: float = 6.0) -> GoalCancelled:
    """End a goal run in our tables, revoke what is at work, and mark its runs failed in Airflow; one that has ended stays as it is.

    Args:
        run: id of the goal run.
        patience_s: seconds to go on trying while PostgreSQL does not answer.

    Raises:
        NotFound: no such run.
        Unavailable: PostgreSQL or Airflow does not answer. Given again, the command does what is left.
    """
    _require(operator, "cancel")
    names = persist(lambda: reach.transact(lambda connection: _names_of(connection, run)), patience_s)
    cancelled = persist(lambda: reach.transact(lambda connection: _end(connection, operator, names)), patience_s)
    reach.airflow.mark(names.dag_id, names.run_id, "failed")
    reach.airflow.mark(rules.SUBMIT, rules.submission_run(names.key), "failed")
    return cancelled


def _names_of(connection: Connection, run: str) -> _Names:
    names = rows.maybe(connection, _Names, _SQL.names_in_airflow, run=run)
    if names is None:
        raise NotFound(f"goal: the run {run!r} does not exist. See `./airlock goal list`.")
    return names


def _end(connection: Connection, operator: Operator, names: _Names) -> GoalCancelled:
    run = goals.lock(connection, names.dag_id, names.run_id)  # before its tasks, as everywhere
    reason, ended = f"cancelled by {operator.name} on the {operator.via}", run.state not in ENDED_RUNS
    if ended:
        for task in tasks.lock_all(connection, run.id):
            tasks.cancel(connection, task, reason)
        goals.set_state(connection, run, GoalRunState.CANCELLED, reason)
        _record(connection, operator, "goal.cancelled", run.id, reason=reason, was=run.state)
    leases.revoke_goal_run(connection, run.id, reason)
    return GoalCancelled(was=run.state, ended=ended)


def extend(connection: Connection, operator: Operator, run: str, key: str, minutes: float) -> list[Extended]:
    """Give the live leases to work of a goal run more time; its deadline bounds them. Each is an entry of the audit log.

    Args:
        run: id of the goal run.
        key: only of this task; empty: of all tasks at work.
        minutes: how much more.

    Raises:
        BadInput: nothing was extended.
    """
    _require(operator, "extend")
    if not 0 < minutes <= MOST_MINUTES:
        raise BadInput("minutes", f"{minutes:g} cannot be given", f"Give more than 0 and at most {MOST_MINUTES}.")
    live = [lease for lease in operators.at_work(connection, run) if key in ("", lease.key)]
    reason = f"asked for on the {operator.via}"
    ends = [(lease.key, leases.renew(connection, lease.id, minutes * 60, operator.name, reason)) for lease in live]
    extended = [Extended(task=task, expires_at=end) for task, end in ends if end is not None]
    if not extended:
        what = "no task of it is at work" if not live else "its leases reach the goal's deadline already, or were revoked"
        raise BadInput("task" if key else "goal", f"nothing to extend: {what}", f"See `./airlock goal show {run}`.")
    return extended


def prune(
    transact: Transact, settings: Settings, operator: Operator, events_days: int | None, transcripts_days: int | None
) -> dict[str, int]:
    """Take away what has grown old of goal runs that have ended, see ``include.goals.pruning.prune``; returns how many went, by kind."""
    _require(operator, "prune")
    gone = pruning.prune(transact, settings, events_days, transcripts_days)
    transact(lambda connection: _record(connection, operator, "pruned", "goal runs", **gone))
    return gone


def add_repository(connection: Connection, operator: Operator, name: str, path: Path) -> Registered:
    """Register a folder under a name that forms and REST may use.

    Raises:
        BadInput: the name or the folder is taken, or it is no name.
    """
    _require(operator, "add repository")
    added = repositories.add(connection, name, path)
    _record(connection, operator, "repository.added", name, path=str(path))
    return added


def stop(connection: Connection, operator: Operator, reason: str) -> list[str]:
    """Revoke everything that is at work, before everything stops; returns the names of the sandboxes that the warden now ends."""
    _require(operator, "stop")
    sandboxes = operators.revoke_all(connection, reason)
    for sandbox in sandboxes:
        _record(connection, operator, "lease.revoked", sandbox, reason=reason)
    return sandboxes


def _require(operator: Operator, command: Command) -> None:
    if not may(operator, command):
        raise Refused(f"{operator.name} may not {command} by way of the {operator.via}.")


def _record(connection: Connection, operator: Operator, action: str, subject: str, **detail: Any) -> None:
    audit.record(connection, operator.name, action, subject, {**detail, "via": operator.via})
