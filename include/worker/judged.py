"""Judges a candidate by the base's own tests and settings: two runs apart, each in a fresh tree and a process of its own.

The first runs the base's tests on the candidate's product; the second the test files that the candidate brings or changed, in its own tree.
Neither can read the base's tree, git's folder or the bundle where the kernel has Landlock.
"""

from __future__ import annotations

import time
from pathlib import Path

from include.worker import harness, pytest_report, sentinels
from include.worker.git import Repository
from include.worker.harness import Difference, PytestSettings
from include.worker.judge import SEVERITY
from include.worker.paths import Paths
from include.worker.pytest_report import RunReport, TestedTree
from include.worker.sentinels import Sentinels

_NO_TEST = "no test was collected; tests are functions test_* in files test_*.py"
_BAD = ("failed", "error")


def run(paths: Paths, base: str, timeout_s: int) -> RunReport:
    """Judge what lies in the work tree by the tests and settings of an earlier commit.

    Args:
        base: the commit, an ancestor of the candidate.
        timeout_s: seconds for all that is run.

    Raises:
        GitRefused: the bundle does not hold that commit.
        OSError: the workspace is full.
    """
    until = time.monotonic() + timeout_s
    before = paths.workspace / "before"
    Repository(paths).lay_out(base, before)
    difference = harness.compare(before, paths.repo)
    settings = harness.settings_of(before)
    runs = []
    if any(harness.is_test(path, settings) for path in harness.files(before)):
        runs.append(_old(paths, before, until))
    old = runs[0] if runs else None
    if difference.new and (old is None or not (old.problem or old.tampered)):
        runs.append(_new(paths, difference, until))
    return _sum(runs, old, difference)


def _old(paths: Paths, before: Path, until: float) -> RunReport:
    target = paths.workspace / "judged"
    arguments = harness.lay_base(before, paths.repo, target)
    settings = harness.settings_of(before)
    placed = sentinels.place(target, _tests_of(before, settings), settings)
    kept = _try(paths, before, placed, until)
    report = _run(paths, TestedTree(target, until - time.monotonic(), arguments), placed, kept)
    changed = harness.changed_since(before, target, placed.files)
    words = ("the base's tests were rewritten while they ran: " + ", ".join(changed[:5]),) if changed else ()
    return report._replace(tampered=report.tampered + words)


def _try(paths: Paths, before: Path, placed: Sentinels, until: float) -> Sentinels:
    """Run the sentinels once on the base itself; keep those that do there what they must."""
    target = paths.workspace / "tried"
    arguments = harness.lay_base(before, before, target)
    harness.copy(paths.workspace / "judged", target, placed.files)
    chosen = ("-k", " or ".join(placed.names), "--tb=no")
    report, _ = pytest_report.run_tree(paths, TestedTree(target, until - time.monotonic(), (*arguments, *chosen)))
    return sentinels.tried(report.tests, placed)


def _new(paths: Paths, difference: Difference, until: float) -> RunReport:
    target = paths.workspace / "brought"
    harness.copy(paths.repo, target, harness.files(paths.repo))
    placed = sentinels.place(target, difference.new, harness.settings_of(paths.repo))
    kept = placed._replace(passes={name: like for name, like in placed.passes.items() if like is None})  # they were not tried anywhere
    return _run(paths, TestedTree(target, until - time.monotonic(), (*difference.new, *placed.brought)), placed, kept)


def _tests_of(root: Path, settings: PytestSettings) -> tuple[str, ...]:
    """The test files of a tree, those first where pytest surely looks."""
    found = [path for path in harness.files(root) if harness.is_test(path, settings)]
    looked = tuple(f"{folder.strip('/')}/" for folder in settings.folders)
    return tuple(sorted(found, key=lambda path: not path.startswith(looked)))


def _run(paths: Paths, tree: TestedTree, placed: Sentinels, kept: Sentinels) -> RunReport:
    """Run a tree; the exit code becomes that of the outcomes without our sentinels, after it was compared with all of them."""
    report, _ = pytest_report.run_tree(paths, tree)
    if report.problem or report.exit_code is None:
        return report._replace(tests=sentinels.without(report.tests, placed))
    tampered = sentinels.broken(report.tests, kept)
    bad = any(outcome in _BAD for outcome in report.tests.values())
    if report.exit_code != int(bad):
        tampered += (f"the exit code {report.exit_code} is unlike the outcomes",)
    return report._replace(tests=sentinels.without(report.tests, placed), tampered=tampered)


def _sum(runs: list[RunReport], old: RunReport | None, difference: Difference) -> RunReport:
    """Put the runs together as if they were one on the candidate's own tree, with what the base's version of replaced tests said beside."""
    tests: dict[str, str] = {}
    replaced: dict[str, str] = {}
    for report in runs:
        for name, outcome in report.tests.items():
            aside = report is old and name.split("::", 1)[0] in difference.replaced
            into = replaced if aside else tests
            into[name] = max(outcome, into.get(name, "passed"), key=SEVERITY.index)
    problem = next((report.problem for report in runs if report.problem), None) or (None if tests or replaced else _NO_TEST)
    ended = all(report.exit_code is not None for report in runs)
    return RunReport(
        tests,
        int(any(outcome in _BAD for outcome in tests.values())) if ended and runs else None,
        sum(report.duration_ms for report in runs),
        problem,
        "\n".join(report.output for report in runs)[-pytest_report.MAX_OUTPUT_CHARS :],
        replaced,
        difference.harness,
        tuple(words for report in runs for words in report.tampered),
    )
