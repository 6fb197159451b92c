"""Grant, watch and revoke leases. Killing is the warden's alone: a revoke only says that a lease is over."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from include.clock import new_id
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import Unavailable
from include.fleet import service as fleet
from include.fleet.models import Need, Placement
from include.fleet.rules import ALIVE_S
from include.frozen import Frozen
from include.governance import service as governance
from include.leases.models import Grant, SandboxEnd, Subject, Verification, Work, WorkLease
from include.settings import Settings
from include.tasks.models import AttemptRef

_SQL = load(__file__)
PERSON_GRACE_S = 1.0
"""Seconds between a person's cancel and the kill: short, because a person is waiting."""
WARDEN_PATIENCE_S = 5.0
"""Seconds past the grace after which an end that the warden has not told is not waited for any longer."""


def grant_work(connection: Connection, node: Placement, work: Work) -> Grant:
    """Grant the lease of an attempt and its two keys. The attempt's row must exist.

    Args:
        node: where its sandbox is placed, see ``fleet.service.place``.
        work: what it is for, with its terms.
    """
    lease, terms = new_id(), work.terms
    grant = _grant(
        connection, node, id=lease, kind="work", sandbox=f"airlock-{work.task_run}-{work.epoch}", goal_run=work.goal_run,
        task_run=work.task_run, epoch=work.epoch, capabilities=list(terms.capabilities), input_commit=work.input_commit, spec=Jsonb({}),
        max_tokens=terms.max_tokens, max_micro=terms.max_micro, ti_id=work.ti_id, seconds=terms.seconds,
    )  # fmt: skip
    connection.execute(_SQL.store_keys, {"lease": lease, "in_key": secrets.token_bytes(32), "out_key": secrets.token_bytes(32)})
    return grant


def grant_verify(connection: Connection, subject: Subject, seconds: int, ti_id: str) -> Grant:
    """Grant a lease to verify a commit: time and resources only, no keys, no socket.

    Args:
        subject: what is verified; ``bundles/<commit>.bundle`` must exist.
        seconds: how long the test run may take.
        ti_id: the Airflow task instance that asks.

    Raises:
        Unavailable: no node is alive.
    """
    node = fleet.place(connection, Need.VERIFY)
    if node is None:
        silent = f"no warden has given a heartbeat for {ALIVE_S:g} s"
        raise Unavailable(f"No node is alive: {silent}. Look at `./airlock status` and `./airlock logs warden`.")
    lease = new_id()
    spec = {"test_timeout_s": seconds} | ({"base": subject.base} if subject.base else {})
    return _grant(
        connection, node, id=lease, kind="verify", sandbox=f"airlock-v-{lease.hex[-12:]}", goal_run=subject.goal_run,
        task_run=subject.task_run, epoch=subject.epoch, capabilities=[], input_commit=subject.commit,
        spec=Jsonb(spec), max_tokens=0, max_micro=0, ti_id=ti_id, seconds=seconds + 60,
    )  # fmt: skip


def _grant(connection: Connection, node: Placement, *, id: UUID, sandbox: str, **columns: Any) -> Grant:
    connection.execute(_SQL.grant_lease, {"node": node.node, "id": id, "sandbox": sandbox, **columns})
    return Grant(id, sandbox, node.node, node.rung)


def work_lease(connection: Connection, settings: Settings, attempt: AttemptRef, calm_s: float | None = None) -> WorkLease | None:
    """Read the lease of one attempt with its evidence; None: it has none.

    Args:
        calm_s: for how long after an outage nothing expires; default: the heartbeat timeout.
    """
    calm = settings.calm_s if calm_s is None else calm_s
    terms = {"calm": calm, "silence": settings.silence_s, "patience": WARDEN_PATIENCE_S}
    return rows.maybe(connection, WorkLease, _SQL.work_lease, **attempt._asdict(), **terms)


def watch(connection: Connection, lease: UUID, ti_id: str) -> None:
    """Say that a sensor watches this lease, and that it is the one that owns it."""
    connection.execute(_SQL.stamp_watch, {"lease": lease, "ti_id": ti_id})


def watch_verification(connection: Connection, lease: UUID) -> bool:
    """Say that somebody still waits for this verification; True if its sandbox still has to be started."""
    return bool(rows.scalar(connection, _SQL.stamp_verify, lease=lease))


def watch_evidence(connection: Connection, lease: UUID) -> bool:
    """Say whether the sandbox of a verification has ended, and that whoever asks still waits for it."""
    return bool(rows.scalar(connection, _SQL.watch_evidence, lease=lease))


class _Newest(Frozen):
    """The newest verification; what the evidence says is null while there is none."""

    lease: UUID
    sandbox: str
    node: str
    tries: int
    exit_code: int | None
    out_of_memory: bool | None
    because: str | None
    handin_sha256: str | None
    handin_refused: str | None
    log: bytes | None


def verification(connection: Connection, subject: Subject) -> Verification | None:
    """Find the newest verification of a commit; None: none was ever granted."""
    found = rows.maybe(connection, _Newest, _SQL.newest_verify, **subject._asdict())
    if found is None:
        return None
    seen = found.model_dump(include=set(SandboxEnd.model_fields))
    return Verification(found.lease, found.sandbox, found.node, found.tries, None if found.log is None else SandboxEnd(**seen))


def revoke_task(connection: Connection, task_run: str, reason: str, grace_s: float = PERSON_GRACE_S) -> None:
    """Revoke every live lease of a task run."""
    connection.execute(_SQL.revoke_of_task, {"task_run": task_run, "reason": reason, "grace": grace_s})


def revoke_goal_run(connection: Connection, goal_run: str, reason: str, grace_s: float = PERSON_GRACE_S) -> None:
    """Revoke every live lease of a goal run."""
    connection.execute(_SQL.revoke_of_goal_run, {"goal_run": goal_run, "reason": reason, "grace": grace_s})


def is_owned(connection: Connection, attempt: AttemptRef, ti_id: str, left_at: datetime) -> bool:
    """Say whether the live lease of an attempt belongs to this task instance, and nobody has watched it since ``left_at``."""
    by_another = rows.scalar(connection, _SQL.owned, **attempt._asdict(), ti_id=ti_id, left_at=left_at)
    return by_another is False


def revoke_broken(connection: Connection, settings: Settings, lease: WorkLease, reason: str) -> None:
    """Revoke a lease whose ``standing`` is a broken term. A worker knew its deadline; in all other cases it has the grace to stop."""
    grace = 0 if lease.standing == "expired" else settings.grace_s
    values = {"lease": lease.id, "reason": reason, "broken": lease.standing, "grace": grace}
    connection.execute(_SQL.revoke_broken, values)


class _Renewed(Frozen):
    """A lease that has more time now."""

    sandbox: str
    expires_at: datetime


def renew(connection: Connection, lease: UUID, seconds: float, by: str, reason: str) -> datetime | None:
    """Give a live lease to work more time, never beyond its goal run's deadline; the audit log keeps who did.

    Args:
        seconds: how much more.
        by: a person, or a process.
        reason: in a few words.

    Returns:
        When it expires now. None: nothing was changed, because it has ended, was revoked, or reaches the deadline already.
    """
    renewed = rows.maybe(connection, _Renewed, _SQL.renew, lease=lease, seconds=seconds)
    if renewed is None:
        return None
    detail = {"seconds": seconds, "reason": reason, "expires_at": renewed.expires_at.isoformat()}
    governance.record(connection, by, "lease.renewed", renewed.sandbox, detail)
    return renewed.expires_at
