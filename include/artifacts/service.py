"""Store typed results, each once, under the hash of its canonical bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal

from psycopg.types.json import Jsonb
from pydantic import BaseModel

from include.artifacts.models import About, CostReport, FileDiff, Log, TestFailure, TestResult
from include.clock import new_id
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.gate.models import TestReport
from include.messages.strict_json import storable
from include.repository.models import FileChange

Source = Literal["worker", "verifier", "broker", "warden"]
MAX_DIFFS = 200
"""File diffs that are stored of one verification; the rest is in git."""
_LANGUAGES = {".py": "python", ".md": "markdown", ".toml": "toml", ".json": "json", ".yaml": "yaml", ".yml": "yaml", ".js": "javascript",
              ".ts": "typescript", ".sh": "shell", ".sql": "sql", ".html": "html", ".css": "css", ".txt": "text"}  # fmt: skip
_SQL = load(__file__)


def canonical(artifact: BaseModel) -> bytes:
    """Make the bytes that an artifact's hash is of: JSON, sorted keys, no spaces, ASCII."""
    return json.dumps(storable(artifact.model_dump(mode="json")), sort_keys=True, separators=(",", ":")).encode()


def store(connection: Connection, about: About, source: Source, artifact: BaseModel, tree: str | None = None) -> None:
    """Keep one typed result under the hash of its canonical bytes; the same bytes again change nothing.

    Args:
        about: whose result it is.
        source: who says so.
        artifact: one of the types of ``include.artifacts.models``.
        tree: the tree that it speaks of, or None.
    """
    data = canonical(artifact)
    stored = json.loads(data)
    values = about._asdict() | {"id": new_id(), "source": source, "tree": tree, "sha256": hashlib.sha256(data).hexdigest()}
    connection.execute(_SQL.insert_artifact, values | {"type": stored.pop("type"), "data": Jsonb(stored)})


def store_verification(connection: Connection, about: About, tree: str, changes: Sequence[FileChange], report: TestReport) -> None:
    """Keep what a verification found: the diffs, the test result, the end of the tests' output, and what the attempt cost."""
    found: list[BaseModel] = [*map(_diff, changes[:MAX_DIFFS]), _tests(report)]
    if report.output:
        found.append(Log(source="test", text=report.output, level="error" if report.problem else "info"))
    for artifact in found:
        store(connection, about, "verifier", artifact, tree)
    for cost in rows.every(connection, CostReport, _SQL.spent, task_run=about.task_run, epoch=about.epoch):
        store(connection, about, "broker", cost, tree)


def _diff(change: FileChange) -> FileDiff:
    language = _LANGUAGES.get(PurePosixPath(change.path).suffix, "")
    counts: dict[str, Any] = {"lines_added": change.additions, "lines_removed": change.deletions}
    return FileDiff(path=change.path, action=change.action, diff=change.patch, language=language, **counts)


def _tests(report: TestReport) -> TestResult:
    outcomes = list(report.tests.values())
    failures = [
        TestFailure(test_name=name[:4096], outcome=outcome) for name, outcome in report.tests.items() if outcome in ("failed", "error")
    ]
    return TestResult(
        exit_code=report.exit_code,
        passed=outcomes.count("passed"),
        failed=len(failures),
        skipped=outcomes.count("skipped"),
        duration_ms=report.duration_ms,
        failures=tuple(failures[:50]),
        problem=(report.problem or "")[:4000],
    )
