"""The gatekeeper's process: judges what is asked, once, with no right to anything else; and stored base results and artifacts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.artifacts import service as artifacts
from include.artifacts.models import ARTIFACT, About, CostReport, FileDiff, Log, TestResult
from include.database.unit_of_work import transaction
from include.gate import base, verifier
from include.gate.models import Allowed, Case, Facts, SuiteName, TestReport, Verdict
from include.settings import ROOT, Settings
from tests.conftest import wait_until
from tests.kit.scale import patience
from tests.merge.world import GREEN, RUN, World


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(settings, tmp_path)


def ask(tree: str, facts: Facts = GREEN, suite: SuiteName = "change") -> None:
    with transaction("airflow") as connection:
        verifier.request_verdict(connection, Case(RUN, None, None, tree, Allowed(suite)), facts)


def answer(tree: str, suite: SuiteName = "change") -> Verdict:
    with transaction("airflow") as connection:
        found = verifier.verdict(connection, Case(RUN, None, None, tree, Allowed(suite)))
    assert found is not None
    return found


def wait_for(tree: str, seconds: float, suite: str = "change") -> Verdict:
    def judged() -> Verdict | None:
        found = answer(tree, suite)
        return found if found.green is not None else None

    return wait_until(f"{tree} is judged", judged, seconds)  # type: ignore[no-any-return]


@pytest.fixture
def process(world: World) -> Iterator[Any]:
    ask("before")
    child = subprocess.Popen(
        [sys.executable, "-m", "include.gate"], cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    yield child
    child.kill()
    child.wait()


@pytest.mark.slow
def test_it_judges_what_was_asked_before_and_while_it_runs(process: Any, world: World) -> None:
    assert wait_for("before", 120).green is True
    for number in range(5):
        ask(f"tree {number}", GREEN.model_copy(update={"tests": 0, "passed": 0}) if number % 2 else GREEN)
        assert wait_for(f"tree {number}", 30).green is (number % 2 == 0)
    assert [finding.expectation for finding in answer("tree 1").findings] == ["tests", "passed"]
    ask("unknown", suite="nowhere")
    assert wait_for("unknown", 30, "nowhere").green is False
    with psycopg.connect(os.environ["AIRLOCK_TEST_ADMIN_DSN"]) as admin:
        mine = "application_name = 'gatekeeper' AND datname = %s"
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}", [world.settings.pg_database])
    ask("after")
    assert wait_for("after", 30).green is True  # a lost connection is made again
    process.send_signal(signal.SIGTERM)
    assert process.wait(patience(20)) == 0


def test_nobody_judges_nothing_is_green(world: World) -> None:
    ask("tree")
    assert answer("tree").green is None


def test_a_verdict_is_asked_for_once_and_never_changes(world: World) -> None:
    ask("tree", GREEN.model_copy(update={"tests": 0}))
    ask("tree", GREEN)
    assert answer("tree").facts["tests"] == 0
    world.judge("tree", False)
    with transaction("gatekeeper") as connection:
        changed = connection.execute("UPDATE verdicts SET green = true WHERE tree = 'tree' AND green IS NULL").rowcount
    assert changed == 0 and answer("tree").green is False


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE verdicts SET facts = '{}'",
        "UPDATE verdicts SET tree = 'x'",
        "INSERT INTO verdicts (id, goal_run, tree, suite, facts) VALUES (gen_random_uuid(), 'x', 'x', 'change', '{}')",
        "SELECT * FROM task_runs",
        "DELETE FROM verdicts",
    ],
)
def test_the_gatekeeper_has_no_other_right(world: World, sql: str) -> None:
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction("gatekeeper") as connection:
        connection.execute(sql)


def test_steps_of_airflow_cannot_answer(world: World) -> None:
    ask("tree")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction("airflow") as connection:
        connection.execute("UPDATE verdicts SET green = true")


def test_base_result_is_stored_once(world: World) -> None:
    good = TestReport(tests={"t.py::a": "passed"}, exit_code=0, duration_ms=1, problem=None, output="")
    reports = {
        "good": good,
        "none": good.model_copy(update={"tests": {}, "exit_code": 5}),
        "late": good.model_copy(update={"exit_code": None}),
        "errors": good.model_copy(update={"tests": {"t.py": "error"}, "exit_code": 2}),
        "told": good.model_copy(update={"problem": "No module named 'numpy'"}),
    }
    with transaction("airflow") as connection:
        problems = {name: base.store(connection, "sample", name, report).problem for name, report in reports.items()}
        assert base.store(connection, "sample", "good", reports["none"]).tests == {"t.py::a": "passed"}
        assert base.result(connection, "sample", "other") is None
    nothing = "no test could be collected"
    assert problems == {
        "good": None,
        "none": nothing,
        "late": "its tests did not end in time",
        "errors": nothing,
        "told": "No module named 'numpy'",
    }


def test_artifacts_are_typed_and_stored_once(world: World) -> None:
    report = TestReport(tests={"t.py::a": "failed", "t.py::b": "passed"}, exit_code=1, duration_ms=7, problem=None, output="1 \0 failed")
    found: list[FileDiff | TestResult | Log | CostReport] = []
    for _ in range(2):
        with transaction("airflow") as connection:
            artifacts.store_verification(connection, About(RUN), "tree", [], report)
            rows = connection.execute(
                "SELECT type, data FROM artifacts WHERE goal_run = %s AND task_run IS NULL ORDER BY created_at, id", [RUN]
            )
            found = [ARTIFACT.validate_python({"type": row["type"], **row["data"]}) for row in rows]
    result, log = found
    assert isinstance(result, TestResult) and (result.passed, result.failed, result.failures[0].test_name) == (1, 1, "t.py::a")
    assert isinstance(log, Log) and log.text == "1 \ufffd failed"
