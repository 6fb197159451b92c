"""Every way to fake a green gate that we know of ends red, and each guard is shown to be the one that holds."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from include.errors import BadInput
from include.gate import rules, verifier
from include.gate.models import Allowed, TestReport
from include.repository.models import FileChange
from include.settings import ROOT

if TYPE_CHECKING:
    from include.gate.gatekeeper import Gatekeeper, Judged

SUITES = ROOT / "include" / "gate" / "suites"
BASE = {"t.py::one": "passed", "t.py::two[a]": "passed", "t.py::known": "failed", "t.py::later": "skipped"}
HONEST: dict[str, Any] = {"tests": {**BASE, "t.py::new": "passed"}, "exit_code": 1, "duration_ms": 5, "problem": None, "output": "1 failed"}
CHANGE = FileChange(path="src/a.py", action="modified", additions=1, deletions=1, patch="")
NOT_READ = TestReport(tests={}, exit_code=None, duration_ms=0, problem="the report cannot be read", output="")


@pytest.fixture(scope="module")
def gatekeeper(great_expectations: ModuleType) -> Gatekeeper:
    assert great_expectations.SUITES == SUITES
    return great_expectations.Gatekeeper()  # type: ignore[no-any-return]


def facts(report: TestReport, **given: Any) -> dict[str, Any]:
    known: dict[str, Any] = {"suite": "change", "touches": ["src/**"], "cost_micro": 10, "max_cost_micro": 10}
    changes = given.pop("changes", [CHANGE])
    return rules.facts_for(report, BASE, changes, Allowed(**known | given)).model_dump(mode="json")


def judge(gatekeeper: Gatekeeper, row: Any, suite: str = "change") -> Judged:
    from include.gate.gatekeeper import Sheet

    return gatekeeper.judge([Sheet("v", suite, row)])[0]


def ran(changed: dict[str, str | None], exit_code: int | None = 1, **more: Any) -> TestReport:
    outcomes = {name: outcome for name, outcome in (HONEST["tests"] | changed).items() if outcome}
    return TestReport(**HONEST | {"tests": outcomes, "exit_code": exit_code} | more)


ALL_SKIPPED = ran(dict.fromkeys(HONEST["tests"], "skipped"), 0)
FAKES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no test, exit 5": (facts(TestReport(**HONEST | {"tests": {}, "exit_code": 5})), {"exit_agrees", "tests", "passed", "gone_tests"}),
    "no test, exit 0": (facts(TestReport(**HONEST | {"tests": {}, "exit_code": 0})), {"exit_agrees", "tests", "passed", "gone_tests"}),
    "everything skipped": (facts(ALL_SKIPPED), {"passed", "gone_tests"}),
    "did not end in time": (facts(ran({}, None)), {"ran", "exit_agrees"}),
    "killed by a signal": (facts(ran({}, -9)), {"exit_agrees"}),
    "problem told": (facts(ran({}, problem="the report was cut")), {"ran"}),
    "report not read": (facts(NOT_READ), {"ran", "exit_agrees", "tests", "passed", "gone_tests"}),
    "test deleted": (facts(ran({"t.py::one": None})), {"gone_tests"}),
    "failing test deleted": (facts(ran({"t.py::known": None}, 0)), {"gone_tests"}),
    "parameter renamed": (facts(ran({"t.py::two[a]": None, "t.py::two[b]": "passed"})), {"gone_tests"}),
    "passing test skipped": (facts(ran({"t.py::one": "skipped"})), {"gone_tests"}),
    "test broken": (facts(ran({"t.py::one": "failed"})), {"new_failures"}),
    "test in error": (facts(ran({"t.py::one": "error"})), {"new_failures"}),
    "new test fails": (facts(ran({"t.py::new": "failed"})), {"new_failures"}),
    "failure, but exit 0": (facts(ran({}, 0)), {"exit_agrees"}),
    "no failure, but exit 1": (facts(ran({"t.py::known": "passed"}, 1)), {"exit_agrees"}),
    "pytest failed inside": (facts(ran({}, 3)), {"exit_agrees"}),
    "empty diff": (facts(ran({}), changes=[]), {"files_changed"}),
    "outside of its paths": (facts(ran({}), touches=["docs/**"]), {"outside_touches"}),
    "no path allowed": (facts(ran({}), touches=[]), {"outside_touches"}),
    "cost beyond the lease": (facts(ran({}), cost_micro=11), {"cost"}),
    "tampered with": (facts(ran({}, tampered=["a test that must fail did not fail"])), {"tampered"}),
    "base test rewritten": (facts(ran({}, replaced={"t.py::one": "failed"})), {"rewritten"}),
    "conftest changed": (facts(ran({}, harness=["conftest.py"])), {"harness"}),
    "conftest changed, named by a glob": (facts(ran({}, harness=["src/conftest.py"])), {"harness"}),
    "count is null": (facts(ran({})) | {"gone_tests": None}, {"facts"}),
    "count is a string": (facts(ran({})) | {"gone_tests": "0"}, {"facts"}),
    "count is true": (facts(ran({})) | {"ran": True}, {"facts"}),
    "count is negative": (facts(ran({})) | {"new_failures": -1}, {"facts"}),
    "column missing": ({name: value for name, value in facts(ran({})).items() if name != "gone_tests"}, {"facts"}),
    "column too many": (facts(ran({})) | {"green": True}, {"facts"}),
    "facts of another kind": (facts(ran({}), suite="report", changes=[]), {"facts"}),
}


def test_honest_work_is_green_in_every_suite(gatekeeper: Gatekeeper) -> None:
    for kind in ("change", "report", "landing"):
        answer = judge(gatekeeper, facts(TestReport(**HONEST), suite=kind), kind)
        assert answer.green and answer.findings == ()
        assert answer.suite_sha256 == hashlib.sha256((SUITES / f"{kind}.json").read_bytes()).hexdigest()
    assert judge(gatekeeper, facts(TestReport(**HONEST), suite="report", changes=[]), "report").green


def test_every_fake_is_red_alone_and_in_one_batch(gatekeeper: Gatekeeper) -> None:
    from include.gate.gatekeeper import Sheet

    honest = facts(TestReport(**HONEST))
    batch = [Sheet(name, "change", row) for name, (row, _) in FAKES.items()] + [Sheet("honest", "change", honest)]
    answers = {answer.id: answer for answer in gatekeeper.judge(batch)}
    found = {name: {finding.expectation for finding in answers[name].findings} for name in FAKES}
    assert found == {name: guards for name, (_, guards) in FAKES.items()}
    assert [name for name, answer in answers.items() if answer.green] == ["honest"]
    print(f"fakes: {len(FAKES)}, false accepts: 0, batch of {len(batch)}")


def test_what_the_task_names_is_told_and_is_green(gatekeeper: Gatekeeper) -> None:
    report = ran({}, replaced={"t.py::one": "failed", "t.py::known": "failed"}, harness=["conftest.py"])
    answer = judge(gatekeeper, facts(report, touches=["src/**", "t.py", "conftest.py"]))
    assert answer.green and {(each.expectation, each.severity) for each in answer.findings} == {
        ("rewritten_named", "warning"),
        ("harness_named", "warning"),
    }
    assert "t.py::one (as it was: failed; as it is now: passed)" in " ".join(each.message for each in answer.findings)
    asked = judge(gatekeeper, facts(report))
    assert not asked.green and {each.severity for each in asked.findings} == {"ask"}


@pytest.mark.parametrize(
    "guard",
    ["ran", "exit_agrees", "new_failures", "gone_tests", "tampered", "rewritten", "harness", "files_changed", "outside_touches", "cost"],
)
def test_control_without_its_guard_the_fake_is_green(
    great_expectations: ModuleType, gatekeeper: Gatekeeper, tmp_path: Path, guard: str
) -> None:
    name, row = next((name, row) for name, (row, guards) in FAKES.items() if guards == {guard})
    suite = json.loads((SUITES / "change.json").read_text())
    suite["expectations"] = [each for each in suite["expectations"] if each["id"] != guard]
    (tmp_path / "change.json").write_text(json.dumps(suite))
    assert judge(great_expectations.Gatekeeper(tmp_path), row).green, name
    assert not judge(gatekeeper, row).green


REPORTS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-10],
    "empty": lambda data: b"",
    "key twice": lambda data: data.replace(b'"exit_code": 1', b'"exit_code": 1, "exit_code": 0'),
    "not finite": lambda data: data.replace(b'"exit_code": 1', b'"exit_code": NaN'),
    "exit code as text": lambda data: data.replace(b'"exit_code": 1', b'"exit_code": "0"'),
    "unknown outcome": lambda data: data.replace(b'"failed"', b'"xpassed"'),
    "unknown field": lambda data: data.replace(b'"exit_code": 1', b'"exit_code": 1, "green": true'),
    "field missing": lambda data: data.replace(b'"problem": null, ', b""),
    "negative time": lambda data: data.replace(b'"duration_ms": 5', b'"duration_ms": -5'),
    "more behind": lambda data: data + b"{}",
    "deep": lambda data: b"[" * 100_000,
    "too large": lambda data: data + b" " * (16 * 1024 * 1024),
}  # fmt: skip


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_that_is_not_one_is_refused(tmp_path: Path, name: str) -> None:
    data = REPORTS[name](json.dumps(HONEST).encode())
    path = tmp_path / "report"
    path.write_bytes(data)
    with pytest.raises(BadInput):
        verifier.read_report(path, hashlib.sha256(data).hexdigest())


def test_a_report_must_be_the_wardens_bytes_in_a_regular_file(tmp_path: Path) -> None:
    path, data = tmp_path / "report", json.dumps(HONEST).encode()
    path.write_bytes(data)
    assert verifier.read_report(path, hashlib.sha256(data).hexdigest()) == TestReport(**HONEST)
    (tmp_path / "link").symlink_to(path)
    for where, sha256 in [(path, "0" * 64), (tmp_path / "link", hashlib.sha256(data).hexdigest()), (tmp_path / "none", "0" * 64)]:
        with pytest.raises(BadInput):
            verifier.read_report(where, sha256)


def test_unknown_suite_is_red(gatekeeper: Gatekeeper) -> None:
    for suite in ("", "../change", "Change", "landing2"):
        assert judge(gatekeeper, facts(TestReport(**HONEST)), suite).green is False


@pytest.mark.parametrize("row", [None, [], "green", 1, {}, {"green": True}])
def test_facts_that_are_no_facts_are_red(gatekeeper: Gatekeeper, row: Any) -> None:
    assert judge(gatekeeper, row).green is False


def test_an_expectation_that_raises_is_red_for_all(great_expectations: ModuleType, tmp_path: Path) -> None:
    suite = json.loads((SUITES / "change.json").read_text())
    suite["expectations"].append(
        {
            "id": "broken",
            "type": "expect_column_values_to_not_be_null",
            "kwargs": {"column": "nowhere"},
            "severity": "critical",
            "meta": {"message": "m"},
        }
    )
    (tmp_path / "change.json").write_text(json.dumps(suite))
    questions = [great_expectations.Sheet(name, "change", facts(TestReport(**HONEST))) for name in "ab"]
    answers = great_expectations.Gatekeeper(tmp_path).judge(questions)
    assert [answer.green for answer in answers] == [False, False]


def test_a_gate_that_fails_inside_is_red(great_expectations: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(SUITES / "change.json", tmp_path)
    broken = great_expectations.Gatekeeper(tmp_path)
    monkeypatch.setattr("include.gate.gatekeeper.pd.DataFrame", lambda *_: 1 / 0)
    answer = judge(broken, facts(TestReport(**HONEST)))
    assert not answer.green and "ZeroDivisionError" in answer.findings[0].message


def test_an_empty_frame_is_not_green(gatekeeper: Gatekeeper) -> None:
    import pandas as pd

    empty = pd.DataFrame([facts(TestReport(**HONEST))]).head(0)
    result = gatekeeper._suites["change"].validation.run(batch_parameters={"dataframe": empty}).to_json_dict()
    failing = [each["expectation_config"]["meta"]["id"] for each in result["results"] if not each["success"]]
    assert failing == ["rows"]  # the trap: without this guard an empty frame is green


def test_a_suite_with_a_defect_does_not_load(great_expectations: ModuleType, tmp_path: Path) -> None:
    for text in (
        "",
        "{}",
        '{"name": "x", "expectations": [{"id": "a", "type": "expect_nothing_at_all", "kwargs": {}, "meta": {"message": "m"}}]}',
    ):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ValueError, match=r"x\.json"):
            great_expectations.Gatekeeper(tmp_path)
