"""What a verify sandbox handed in is read strictly, and the gatekeeper is asked for its verdict."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path

from psycopg.types.json import Jsonb
from pydantic import ValidationError

from include.clock import new_id
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadInput
from include.gate.models import Case, Facts, TestReport, Verdict
from include.messages.strict_json import NotStrict, parse, storable

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


def request_verdict(connection: Connection, case: Case, facts: Facts) -> Verdict:
    """Ask the gatekeeper; the same case is asked once, and the first facts stand."""
    asked = {**case.key, "id": new_id(), "facts": Jsonb(storable(facts.model_dump(mode="json")))}
    connection.execute(_SQL.insert_verdict, asked)
    return rows.one(connection, Verdict, _SQL.verdict, **case.key)


def verdict(connection: Connection, case: Case) -> Verdict | None:
    """Read the verdict on exactly this; None: nobody asked. ``green`` is None until it is judged."""
    return rows.maybe(connection, Verdict, _SQL.verdict, **case.key)
