"""One sealed run of a repository's tests, as a report (the form of ``include.gate.models.TestReport``)."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from include.worker import child, judge
from include.worker.child import Bounds, Finished
from include.worker.errors import NotSealed
from include.worker.judge import Lines
from include.worker.paths import Paths
from include.worker.seal import DEVICES, Policy

MAX_OUTPUT_CHARS = 64 * 1024
MAX_TOLD_BYTES = 64 * 1024 * 1024
_MEANING = {2: "pytest was interrupted", 3: "pytest failed inside itself", 4: "pytest does not accept its configuration or arguments"}
_MISSING = re.compile(r"ModuleNotFoundError: (No module named '[^']*')")


class RunReport(NamedTuple):
    """What a test run says. ``exit_code`` is None if the run did not end in time.

    Attributes:
        tests: the outcome per node id, as on the tree itself.
        replaced: the outcome of the base's own version of what the change rewrote or removed, run on the new code.
        harness: conftests, settings and helpers of tests that the change brings, changed or removed.
        tampered: why the run cannot be believed.
    """

    tests: dict[str, str]
    exit_code: int | None
    duration_ms: int
    problem: str | None
    output: str
    replaced: dict[str, str] = {}  # noqa: RUF012 (never changed)
    harness: tuple[str, ...] = ()
    tampered: tuple[str, ...] = ()

    def count(self, outcome: str) -> int:
        """Count the tests with this outcome."""
        return sum(1 for each in self.tests.values() if each == outcome)

    def names(self, *outcomes: str, limit: int = 50) -> list[str]:
        """List the first tests with one of these outcomes, each name cut to 300 characters."""
        return [name[:300] for name, outcome in self.tests.items() if outcome in outcomes][:limit]


def run(paths: Paths, timeout_s: int, stop: threading.Event | None = None) -> RunReport:
    """Run the tests of the work tree with the toolbox's pytest, sealed: no socket of ours, no key, no git folder to write to.

    Args:
        timeout_s: seconds after which the whole run is killed.
        stop: when set, the run is killed as if its time were over.
    """
    return run_tree(paths, TestedTree(paths.repo, timeout_s, read=(str(paths.git),)), stop)[0]


class TestedTree(NamedTuple):
    """A tree whose tests are to be run, for how many seconds, with which arguments of pytest, and what it may read beside itself."""

    folder: Path
    timeout_s: float
    arguments: tuple[str, ...] = ()
    read: tuple[str, ...] = ()


def run_tree(paths: Paths, tree: TestedTree, stop: threading.Event | None = None) -> tuple[RunReport, Lines]:
    """Run the tests of a tree in a process of its own, which tells its outcomes by one pipe; returns the report and what was told."""
    write = (str(tree.folder), str(paths.scratch), "/dev/shm", *DEVICES)
    policy = Policy(read=(str(paths.toolbox), *tree.read), write=write, cpu_s=math.ceil(tree.timeout_s) * 4)
    program = [os.path.realpath(sys.executable), "-I", "-S", "-B", str(paths.site / "run_pytest.py")]
    command = [*program, str(paths.site), str(tree.folder), *tree.arguments]
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(paths.scratch), "GIT_CONFIG_NOSYSTEM": "1"}
    bounds = Bounds(policy, tree.timeout_s, tree.folder, environment, stop=stop, tells=MAX_TOLD_BYTES)
    try:
        finished = child.run(paths, bounds, command)
    except NotSealed as error:
        return RunReport({}, None, 0, str(error), ""), Lines({})
    lines = judge.read(finished.told, whole=finished.exit_code is not None)
    return _report(finished, lines, tree.timeout_s), lines


def _report(finished: Finished, lines: Lines, timeout_s: float) -> RunReport:
    text = (finished.out + finished.err).decode("utf-8", errors="replace").replace("\0", "\ufffd")[-MAX_OUTPUT_CHARS:]
    return RunReport(lines.tests, finished.exit_code, finished.duration_ms, _problem(finished, lines, text, timeout_s), text)


def _problem(finished: Finished, lines: Lines, text: str, timeout_s: float) -> str | None:
    """Why the run says nothing, or None."""
    if finished.exit_code is None:
        return f"the tests did not end within {timeout_s:g} s; raise the test timeout or make them faster"
    ran = len(lines.tests) - sum(1 for outcome in lines.tests.values() if outcome == "error")
    if missing := _MISSING.search(text) if not ran else None:
        return f"no test could be run: {missing[1]}. Tests may use pytest and the standard library only"
    if lines.wrong:
        return f"what the test process told cannot be true: {lines.wrong}. Tests and code may not write into the runner's pipe"
    if lines.ended is None and lines.collected is None:
        return f"pytest did not start (exit code {finished.exit_code}): {_last_line(text)}"
    if lines.ended is None:
        return f"the test process left early: {_how(finished.exit_code)} ended it before pytest was done"
    if lines.ended != finished.exit_code:
        codes = f"pytest was done with code {lines.ended}, and the process with {finished.exit_code}"
        return f"the test process forked and left, or something ended it: {codes}"
    if lines.ended in _MEANING:
        return f"{_MEANING[lines.ended]}: {_last_line(text)}"
    if not lines.tests:
        return "no test was collected; tests are functions test_* in files test_*.py"
    return None


def _how(exit_code: int | None) -> str:
    return f"signal {exit_code - 128}" if exit_code is not None and exit_code > 128 else f"an exit with code {exit_code}"


def _last_line(text: str) -> str:
    errors = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in errors if "error" in line.casefold()]
    return (named or errors or ["it said nothing"])[-1][:500]
