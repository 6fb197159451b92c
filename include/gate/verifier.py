"""What a verify sandbox handed in is read strictly, and the gatekeeper is asked for its verdict."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path
from uuid import UUID

from psycopg.types.json import Jsonb
from pydantic import ValidationError

from include.clock import new_id
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadInput
from include.gate.models import Facts, TestReport, Verdict
from include.messages.strict_json import NotStrict, parse, storable

__all__ = ["Verdict", "read_report", "request_verdict", "verdict"]

MAX_REPORT_BYTES = 16 * 1024 * 1024
_REMEDY = "The verification counts as not run; look at the sandbox's log."
_SQL = load(__file__)


def read_report(path: Path, sha256: str) -> TestReport:
    """Read a verify sandbox's report.

    Args:
        path: the warden's copy.
        sha256: of the bytes, as the warden stored it with the evidence.

    Raises:
        BadInput: missing, too large, other bytes than the warden saw, or not a report.
    """
    data = _bytes(path)
    if not hmac.compare_digest(hashlib.sha256(data).hexdigest(), sha256):
        raise BadInput("report", "its bytes are not those that the warden took out of the sandbox", _REMEDY)
    try:
        parse(data)  # strict grammar, each key once; the model then reads the same bytes with strict types
        return TestReport.model_validate_json(data, strict=True)
    except (NotStrict, ValidationError) as error:
        raise BadInput("report", f"it is not a test report: {str(error)[:500]}", _REMEDY) from error


def _bytes(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BadInput("report", f"it cannot be opened ({error.strerror})", _REMEDY) from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_REPORT_BYTES:
            raise BadInput("report", f"it is not a regular file of at most {MAX_REPORT_BYTES} bytes", _REMEDY)
        return file.read(MAX_REPORT_BYTES + 1)


def request_verdict(
    connection: Connection, goal_run: str, task_run: str | None, epoch: int | None, tree: str, suite: str, facts: Facts
) -> UUID:
    """Ask the gatekeeper; the same attempt, tree and suite are asked once, and the first facts stand.

    Args:
        task_run: None, with ``epoch`` None, for a landing.
        suite: ``change``, ``report`` or ``landing``.

    Returns:
        The verdict's id.
    """
    asked = {"id": new_id(), "goal_run": goal_run, "task_run": task_run, "epoch": epoch, "tree": tree, "suite": suite}
    connection.execute(_SQL.insert_verdict, asked | {"facts": Jsonb(storable(facts.model_dump(mode="json")))})
    found = verdict(connection, goal_run, task_run, epoch, tree, suite)
    assert found is not None
    return found.id


def verdict(connection: Connection, goal_run: str, task_run: str | None, epoch: int | None, tree: str, suite: str) -> Verdict | None:
    """The verdict on exactly this, or None if nobody asked; ``green`` is None until it is judged."""
    asked = {"goal_run": goal_run, "task_run": task_run, "epoch": epoch, "tree": tree, "suite": suite}
    row = connection.execute(_SQL.verdict, asked).fetchone()
    return Verdict(**row | {"findings": tuple(row["findings"] or ())}) if row else None
