"""Run a commit's tests in a fresh sandbox of its own: grant a lease to verify, start it at the warden, wait for the evidence, read it."""

from __future__ import annotations

from typing import Any, NamedTuple

from include.database.unit_of_work import Connection, transaction
from include.errors import BadInput, SandboxFailed, StaleEpoch
from include.flow.waiting import NotYet
from include.gate import verifier
from include.gate.models import TestReport
from include.goals import service as goals
from include.leases import service as leases
from include.leases.models import Verification
from include.repository import bundles, mirror
from include.sandbox.client import ensure_sandbox
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import TaskRunState

KILLED_TRIES = 3
"""Test runs that may be killed from outside before that is the tests' own doing: they might kill their sandbox."""


class Asked(NamedTuple):
    """What is to be tested, for whom."""

    goal_run: str
    repository: str
    commit: str
    ti_id: str
    task_run: str | None = None
    epoch: int | None = None


def tested(settings: Settings, asked: Asked) -> TestReport | NotYet:
    """The test report of a commit, or what is still waited for. A second call finds the first one's sandbox.

    Raises:
        SandboxFailed: the sandbox was lost to infrastructure again and again.
        StaleEpoch: what asked has ended, or another attempt has taken over.
    """
    with transaction("airflow") as connection:
        found = leases.verification(connection, asked.goal_run, asked.commit, asked.task_run, asked.epoch)
        if found is None or (_lost(found) and found.tries < settings.infrastructure_attempts):
            _require_wanted(connection, asked)
            bundles.export_bundle(settings, mirror.path_of(settings, asked.repository), asked.commit)
            grant = leases.grant_verify(
                connection, asked.goal_run, asked.commit, settings.test_timeout_s, asked.ti_id, asked.task_run, asked.epoch
            )
            found = Verification(grant.lease, grant.sandbox, grant.node, 1, None)
    if found.evidence is None:
        with transaction("airflow") as connection:
            to_start = leases.watch_verification(connection, found.lease)
        if to_start:
            ensure_sandbox(found.node, found.sandbox)
        return NotYet("evidence", str(found.lease), f"Running the tests of {asked.commit[:12]} in a fresh sandbox ({found.sandbox}).")
    if _lost(found):
        raise SandboxFailed(f"the sandbox that runs the tests was lost {found.tries} times ({found.evidence['because'] or 'killed'})")
    return _read(settings, found)


def _require_wanted(connection: Connection, asked: Asked) -> None:
    """A step that is late may not start a sandbox for what has ended."""
    if asked.task_run is not None and asked.epoch is not None:
        row = tasks.lock_by_id(connection, asked.task_run, asked.epoch)
        if row["state"] != TaskRunState.VERIFYING:
            raise StaleEpoch(f"task run {asked.task_run} is {row['state']}; nothing of it is tested any more")
    elif goals.has_ended(connection, asked.goal_run):
        raise StaleEpoch(f"goal run {asked.goal_run} has ended; nothing of it is tested any more")


def _lost(found: Verification) -> bool:
    evidence: dict[str, Any] | None = found.evidence
    if evidence is None or evidence["handin_sha256"]:
        return False
    if evidence["exit_code"] is None or evidence["because"].startswith(("unwatched", "revoked")):
        return True
    killed = evidence["exit_code"] in (137, 143) and not evidence["out_of_memory"] and not evidence["because"]
    return killed and found.tries < KILLED_TRIES


def _read(settings: Settings, found: Verification) -> TestReport:
    evidence = found.evidence or {}
    if evidence["handin_sha256"]:
        try:
            return verifier.read_report(settings.handins_dir / str(found.lease), evidence["handin_sha256"])
        except BadInput as error:
            problem = str(error)
    else:
        problem = evidence["handin_refused"] or f"the test run left no report (exit code {evidence['exit_code']})"
    log = bytes(evidence["log"])[-4000:].decode(errors="replace")
    return TestReport(tests={}, exit_code=None, duration_ms=0, problem=problem, output=log)
