"""Wait for a test run: a step grants it, has its sandbox started at the warden, and comes back when the evidence is there."""

from __future__ import annotations

from include.database.unit_of_work import transaction
from include.flow.waiting import NotYet
from include.gate import testing
from include.gate.models import TestReport
from include.gate.testing import Asked
from include.leases import service as leases
from include.sandbox.client import ensure_sandbox
from include.settings import Settings


def tested(settings: Settings, asked: Asked) -> TestReport | NotYet:
    """Return the test report of a commit, or what is still waited for. A second call finds the first one's sandbox.

    Raises:
        SandboxFailed: the sandbox was lost to infrastructure again and again.
        StaleEpoch: what asked has ended, or another attempt has taken over.
    """
    with transaction("airflow") as connection:
        found = testing.find_or_grant(connection, settings, asked)
    if found.evidence is not None:
        return testing.read(settings, found, found.evidence)
    with transaction("airflow") as connection:
        to_start = leases.watch_verification(connection, found.lease)
    if to_start:
        ensure_sandbox(found.node, found.sandbox)
    return NotYet("evidence", str(found.lease), f"Running the tests of {asked.subject.commit[:12]} in a fresh sandbox ({found.sandbox}).")
