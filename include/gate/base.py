"""The base's own test run, once per commit: what fails there is a known failure, and what is there may not go."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.gate.models import BaseResult, TestReport
from include.messages.strict_json import storable

_SQL = load(__file__)


def result(connection: Connection, repository: str, commit: str) -> BaseResult | None:
    """The stored run of a commit, or None if it was never run."""
    return rows.maybe(connection, BaseResult, _SQL.base_result, repository=repository, commit=commit)


def store(connection: Connection, repository: str, commit: str, report: TestReport) -> BaseResult:
    """Keep a run of a commit; the first one stays."""
    values = {"tests": Jsonb(storable(dict(report.tests))), "problem": _problem(report)}
    connection.execute(_SQL.insert_base_result, {"repository": repository, "commit": commit} | values)
    stored = result(connection, repository, commit)
    assert stored is not None
    return stored


def _problem(report: TestReport) -> str | None:
    if report.problem:
        return report.problem.replace("\0", "\ufffd")
    if report.exit_code is None:
        return "its tests did not end in time"
    if not any(outcome != "error" for outcome in report.tests.values()):
        return "no test could be collected"
    return None
