"""Globs, gone tests and exit codes: the pure part of the gate."""

from __future__ import annotations

import pytest

from include.gate import rules
from include.gate.models import Allowed, TestReport


@pytest.mark.parametrize(
    ("glob", "inside", "outside"),
    [
        ("**", ["a", "a/b", "a/b/c.py", ".hidden"], [""]),
        ("src/**", ["src/a", "src/a/b"], ["src", "srcs/a", "a/src/b", "../src/a"]),
        ("src/", ["src/a", "src/a/b"], ["src", "a/src/b"]),
        ("*.py", ["a.py", ".py"], ["a/b.py", "a.pyc", "a.py/b"]),
        ("**/*.py", ["a.py", "a/b.py", "a/b/c.py"], ["a.pyx", "a/b"]),
        ("src/**/test_?.py", ["src/test_a.py", "src/x/y/test_b.py"], ["src/test_ab.py", "src/x/test_/.py"]),
        ("a.b", ["a.b"], ["axb", "a.bc", "x/a.b"]),
        ("[ab]*.txt", ["a1.txt", "b.txt"], ["c.txt", "[ab].txt"]),
        ("[!a].txt", ["b.txt"], ["a.txt", "/.txt"]),
        ("./docs/*", ["docs/a"], ["docs/a/b"]),
        ("a(b|c)$+.py", ["a(b|c)$+.py"], ["ab.py", "abb.py"]),
        ("x/**y/z", ["x/y/z", "x/ay/z"], ["x/a/y/z"]),
        ("[", ["["], ["a"]),
    ],
)
def test_globs(glob: str, inside: list[str], outside: list[str]) -> None:
    assert [path for path in inside if not rules.is_inside(path, [glob])] == []
    assert [path for path in outside if rules.is_inside(path, [glob])] == []


def test_no_glob_allows_nothing() -> None:
    assert rules.is_inside("a.py", []) is False


def test_gone_tests() -> None:
    before = {"t.py::a": "passed", "t.py::b[1]": "passed", "t.py::c": "failed", "t.py::d": "skipped", "u.py": "error", "v.py": "error"}
    now = {"t.py::a": "skipped", "t.py::b[2]": "passed", "t.py::d": "skipped", "u.py::x": "passed"}
    assert rules.gone_tests(before, now) == ["t.py::a", "t.py::b[1]", "t.py::c", "v.py"]


@pytest.mark.parametrize(
    ("outcomes", "agreeing"),
    [(["passed"], {0}), (["passed", "failed"], {1}), (["passed", "error"], {1, 2}), ([], set()), (["skipped"], {0})],
)
def test_exit_codes(outcomes: list[str], agreeing: set[int]) -> None:
    for code in (None, -9, 0, 1, 2, 3, 4, 5, 137):
        tests = {f"t.py::{number}": outcome for number, outcome in enumerate(outcomes)}
        report = TestReport(tests=tests, exit_code=code, duration_ms=1, problem=None, output="")  # type: ignore[arg-type]
        assert rules.exit_agrees(report) is (code in agreeing), code


def test_names_are_capped_and_counts_are_not() -> None:
    tests = {f"t.py::{'x' * 500}{number}": "failed" for number in range(80)}
    report = TestReport(tests=tests, exit_code=1, duration_ms=1, problem=None, output="")  # type: ignore[arg-type]
    facts = rules.facts_for(report, {}, [], Allowed("change"))
    assert facts.new_failures == 80 and len(facts.new_failure_names) == 50 and len(facts.new_failure_names[0]) == 300
