"""Grant, watch and revoke leases. Killing is the warden's alone: a revoke only says that a lease is over."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from include.clock import new_id
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import Unavailable
from include.fleet import service as fleet
from include.fleet.models import Need, Placement
from include.fleet.rules import ALIVE_S
from include.governance import service as governance
from include.leases.models import Grant, Terms, Verification
from include.settings import Settings

_SQL = load(__file__)
PERSON_GRACE_S = 1.0
"""Seconds between a person's cancel and the kill: short, because a person is waiting."""
WARDEN_PATIENCE_S = 5.0
"""Seconds past the grace after which an end that the warden has not told is not waited for any longer."""


def find_room(connection: Connection) -> Placement | None:
    """Find room for one more worker; no other worker gets a place until the transaction ends. None: wait."""
    return fleet.place(connection, Need.WORK)


def grant_work(
    connection: Connection, node: Placement, goal_run: str, task_run: str, epoch: int, terms: Terms, input_commit: str, ti_id: str
) -> Grant:
    """Grant the lease of an attempt and its two keys. The attempt's row must exist.

    Args:
        node: from ``find_room``.
        terms: bounds, time in seconds and money in micro-USD.
        input_commit: what the worker starts from; ``bundles/<commit>.bundle`` must exist.
        ti_id: the Airflow task instance that asks.
    """
    lease = new_id()
    grant = _grant(
        connection, node, id=lease, kind="work", sandbox=f"airlock-{task_run}-{epoch}", goal_run=goal_run, task_run=task_run, epoch=epoch,
        capabilities=list(terms.capabilities), input_commit=input_commit, spec=Jsonb({}), max_tokens=terms.max_tokens,
        max_micro=terms.max_micro, ti_id=ti_id, seconds=terms.seconds,
    )  # fmt: skip
    connection.execute(_SQL.store_keys, {"lease": lease, "in_key": secrets.token_bytes(32), "out_key": secrets.token_bytes(32)})
    return grant


def grant_verify(
    connection: Connection, goal_run: str, commit: str, seconds: int, ti_id: str, task_run: str | None = None, epoch: int | None = None
) -> Grant:
    """Grant a lease to verify a commit: time and resources only, no keys, no socket.

    Args:
        commit: ``bundles/<commit>.bundle`` must exist.
        seconds: how long the test run may take.
        task_run: None for the base's own run and for a landing.

    Raises:
        Unavailable: no node is alive.
    """
    node = fleet.place(connection, Need.VERIFY)
    if node is None:
        silent = f"no warden has given a heartbeat for {ALIVE_S:g} s"
        raise Unavailable(f"No node is alive: {silent}. Look at `./airlock status` and `./airlock logs warden`.")
    lease = new_id()
    return _grant(
        connection, node, id=lease, kind="verify", sandbox=f"airlock-v-{lease.hex[-12:]}", goal_run=goal_run, task_run=task_run,
        epoch=epoch, capabilities=[], input_commit=commit, spec=Jsonb({"test_timeout_s": seconds}), max_tokens=0, max_micro=0, ti_id=ti_id,
        seconds=seconds + 60,
    )  # fmt: skip


def _grant(connection: Connection, node: Placement, **columns: Any) -> Grant:
    connection.execute(_SQL.grant_lease, {"node": node.node, **columns})
    return Grant(columns["id"], columns["sandbox"], node.node, node.rung)


def work_lease(connection: Connection, settings: Settings, task_run: str, epoch: int, calm_s: float | None = None) -> dict[str, Any] | None:
    """The lease of one attempt joined with its evidence (see the query), or None.

    Args:
        calm_s: for how long after an outage nothing expires; default: the heartbeat timeout.
    """
    values = {
        "task_run": task_run,
        "epoch": epoch,
        "calm": settings.heartbeat_timeout_s if calm_s is None else calm_s,
        "silence": settings.heartbeat_timeout_s,
        "patience": WARDEN_PATIENCE_S,
    }
    return connection.execute(_SQL.work_lease, values).fetchone()


def watch(connection: Connection, lease: UUID, ti_id: str) -> None:
    """Say that a sensor watches this lease, and that it is the one that owns it."""
    connection.execute(_SQL.stamp_watch, {"lease": lease, "ti_id": ti_id})


def watch_verification(connection: Connection, lease: UUID) -> bool:
    """Say that somebody still waits for this verification; True if its sandbox still has to be started."""
    row = connection.execute(_SQL.stamp_verify, {"lease": lease}).fetchone()
    return bool(row and row["to_start"])


def verification(connection: Connection, goal_run: str, commit: str, task_run: str | None, epoch: int | None) -> Verification | None:
    """The newest verification of a commit, or None if none was ever granted."""
    row = connection.execute(_SQL.newest_verify, {"goal_run": goal_run, "commit": commit, "task_run": task_run, "epoch": epoch}).fetchone()
    if row is None:
        return None
    return Verification(row["id"], row["sandbox"], row["node"], row["tries"], row if row["has_evidence"] else None)


def revoke_task(connection: Connection, task_run: str, reason: str, grace_s: float = PERSON_GRACE_S) -> list[dict[str, Any]]:
    """Revoke every live lease of a task run; returns what was revoked."""
    return connection.execute(_SQL.revoke_of_task, {"task_run": task_run, "reason": reason, "grace": grace_s}).fetchall()


def revoke_goal_run(connection: Connection, goal_run: str, reason: str, grace_s: float = PERSON_GRACE_S) -> list[dict[str, Any]]:
    """Revoke every live lease of a goal run; returns what was revoked."""
    return connection.execute(_SQL.revoke_of_goal_run, {"goal_run": goal_run, "reason": reason, "grace": grace_s}).fetchall()


def owned(connection: Connection, task_run: str, epoch: int, ti_id: str, left_at: datetime) -> dict[str, Any] | None:
    """The live lease of an attempt if this task instance owns it; ``watched_by_another`` if somebody watched it after ``left_at``."""
    return connection.execute(_SQL.owned, {"task_run": task_run, "epoch": epoch, "ti_id": ti_id, "left_at": left_at}).fetchone()


def revoke_broken(connection: Connection, settings: Settings, lease: dict[str, Any], reason: str) -> None:
    """Revoke a lease whose ``standing`` is a broken term. A worker knew its deadline; in all other cases it has the grace to stop."""
    grace = 0 if lease["standing"] == "expired" else settings.grace_s
    values = {"lease": lease["id"], "reason": reason, "broken": lease["standing"], "grace": grace}
    connection.execute(_SQL.revoke_broken, values)


def renew(connection: Connection, lease: UUID, seconds: float, by: str, reason: str) -> datetime | None:
    """Give a live lease to work more time, never beyond its goal run's deadline; the audit log keeps who did.

    Args:
        seconds: how much more.
        by: a person, or a process.
        reason: in a few words.

    Returns:
        When it expires now. None: nothing was changed, because it has ended, was revoked, or reaches the deadline already.
    """
    row = connection.execute(_SQL.renew, {"lease": lease, "seconds": seconds}).fetchone()
    if row is None:
        return None
    detail = {"seconds": seconds, "reason": reason, "expires_at": row["expires_at"].isoformat()}
    governance.record(connection, by, "lease.renewed", row["sandbox"], detail)
    expires_at: datetime = row["expires_at"]
    return expires_at
