"""Run a commit's tests in a fresh sandbox of its own: the lease to verify is granted once, its evidence is read strictly."""

from __future__ import annotations

from typing import NamedTuple

from include.database.unit_of_work import Connection
from include.errors import BadInput, SandboxFailed, StaleEpoch
from include.gate import verifier
from include.gate.models import TestReport
from include.goals import service as goals
from include.leases import service as leases
from include.leases.models import SandboxEnd, Subject, Verification
from include.repository import bundles, mirror
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import AttemptRef, TaskRunState

KILLED_TRIES = 3
"""Test runs that may be killed from outside before that is the tests' own doing: they might kill their sandbox."""


class Asked(NamedTuple):
    """What is to be tested, in which repository, and by which task instance of Airflow."""

    subject: Subject
    repository: str
    ti_id: str


def find_or_grant(connection: Connection, settings: Settings, asked: Asked) -> Verification:
    """Find the newest test run of what is asked; grant one if there is none, or if it was lost and may be tried again.

    Raises:
        StaleEpoch: what asked has ended, or another attempt has taken over.
    """
    found = leases.verification(connection, asked.subject)
    if found is not None and not (is_lost(found) and found.tries < settings.infrastructure_attempts):
        return found
    _require_wanted(connection, asked.subject)
    bundles.export_bundle(settings, mirror.path_of(settings, asked.repository), asked.subject.commit)
    grant = leases.grant_verify(connection, asked.subject, settings.test_timeout_s, asked.ti_id)
    return Verification(grant.lease, grant.sandbox, grant.node, 1, None)


def _require_wanted(connection: Connection, subject: Subject) -> None:
    """Refuse a step that is late: it may not start a sandbox for what has ended."""
    if subject.task_run is not None and subject.epoch is not None:
        task = tasks.lock_attempt(connection, AttemptRef(subject.task_run, subject.epoch))
        if task.state is not TaskRunState.VERIFYING:
            raise StaleEpoch(f"task run {task.id} is {task.state}; nothing of it is tested any more")
    elif goals.has_ended(connection, subject.goal_run):
        raise StaleEpoch(f"goal run {subject.goal_run} has ended; nothing of it is tested any more")


def is_lost(found: Verification) -> bool:
    """Say whether a test run's sandbox was lost to infrastructure, so that it says nothing about the tests."""
    evidence = found.evidence
    if evidence is None or evidence.handin_sha256:
        return False
    if evidence.exit_code is None or evidence.because.startswith(("unwatched", "revoked")):
        return True
    killed = evidence.exit_code in (137, 143) and not evidence.out_of_memory and not evidence.because
    return killed and found.tries < KILLED_TRIES


def read(settings: Settings, found: Verification, evidence: SandboxEnd) -> TestReport:
    """Read the report of a test run whose sandbox has ended.

    Raises:
        SandboxFailed: the sandbox was lost to infrastructure again and again.
    """
    if is_lost(found):
        raise SandboxFailed(f"the sandbox that runs the tests was lost {found.tries} times ({evidence.because or 'killed'})")
    if evidence.handin_sha256:
        try:
            return verifier.read_report(settings.handins_dir / str(found.lease), evidence.handin_sha256)
        except BadInput as error:
            problem = str(error)
    else:
        problem = evidence.handin_refused or f"the test run left no report (exit code {evidence.exit_code})"
    log = evidence.log[-4000:].decode(errors="replace")
    return TestReport(tests={}, exit_code=None, duration_ms=0, problem=problem, output=log)
