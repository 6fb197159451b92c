"""One sealed run of a repository's tests, as a report (the form of ``include.gate.models.TestReport``)."""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
import threading
from typing import Any, NamedTuple

from include.worker import child
from include.worker.child import Bounds, Finished
from include.worker.errors import NotSealed
from include.worker.paths import Paths
from include.worker.seal import DEVICES, Policy

MAX_OUTPUT_CHARS = 64 * 1024
MAX_OUTCOMES_BYTES = 64 * 1024 * 1024
_SEVERITY = ("passed", "skipped", "failed", "error")
_MEANING = {2: "pytest was interrupted", 3: "pytest failed inside itself", 4: "pytest does not accept its configuration or arguments"}
_MISSING = re.compile(r"ModuleNotFoundError: (No module named '[^']*')")


class RunReport(NamedTuple):
    """What a test run says. ``tests`` is the outcome per node id; ``exit_code`` is None if the run did not end in time."""

    tests: dict[str, str]
    exit_code: int | None
    duration_ms: int
    problem: str | None
    output: str

    def count(self, outcome: str) -> int:
        """Count the tests with this outcome."""
        return sum(1 for each in self.tests.values() if each == outcome)

    def names(self, *outcomes: str, limit: int = 50) -> list[str]:
        """List the first tests with one of these outcomes, each name cut to 300 characters."""
        return [name[:300] for name, outcome in self.tests.items() if outcome in outcomes][:limit]


class _Lines(NamedTuple):
    tests: dict[str, str]
    collected: int | None
    ended: int | None


def run(paths: Paths, timeout_s: int, stop: threading.Event | None = None) -> RunReport:
    """Run the tests of the work tree with the toolbox's pytest, sealed: no socket of ours, no key, no git folder to write to.

    Args:
        timeout_s: seconds after which the whole run is killed.
        stop: when set, the run is killed as if its time were over.
    """
    outcomes = paths.workspace / f"outcomes-{secrets.token_hex(6)}"
    held = os.open(outcomes, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)  # ours, whatever a test puts in its place
    write = (str(paths.repo), str(outcomes), str(paths.scratch), "/dev/shm", *DEVICES)
    policy = Policy(read=(str(paths.toolbox), str(paths.git)), write=write, cpu_s=timeout_s * 4)
    command = [
        os.path.realpath(sys.executable),
        "-I",
        "-S",
        "-B",
        str(paths.site / "run_pytest.py"),
        str(paths.site),
        str(paths.repo),
        str(outcomes),
    ]
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(paths.scratch), "GIT_CONFIG_NOSYSTEM": "1"}
    try:
        finished = child.run(paths, Bounds(policy, timeout_s, paths.repo, environment, stop=stop), command)
        lines = _read(os.pread(held, min(os.fstat(held).st_size, MAX_OUTCOMES_BYTES), 0))
    except NotSealed as error:
        return RunReport({}, None, 0, str(error), "")
    finally:
        os.close(held)
        outcomes.unlink(missing_ok=True)
    return _report(finished, lines, timeout_s)


def _report(finished: Finished, lines: _Lines, timeout_s: int) -> RunReport:
    text = (finished.out + finished.err).decode("utf-8", errors="replace").replace("\0", "\ufffd")[-MAX_OUTPUT_CHARS:]
    return RunReport(lines.tests, finished.exit_code, finished.duration_ms, _problem(finished, lines, text, timeout_s), text)


def _problem(finished: Finished, lines: _Lines, text: str, timeout_s: int) -> str | None:
    """Why the run says nothing, or None."""
    if finished.exit_code is None:
        return f"the tests did not end within {timeout_s} s; raise the test timeout or make them faster"
    ran = len(lines.tests) - sum(1 for outcome in lines.tests.values() if outcome == "error")
    if missing := _MISSING.search(text) if not ran else None:
        return f"no test could be run: {missing[1]}. Tests may use pytest and the standard library only"
    if lines.ended is None and lines.collected is None:
        return f"pytest did not start (exit code {finished.exit_code}): {_last_line(text)}"
    if lines.ended is None or lines.ended != finished.exit_code:
        return f"something ended the test process with code {finished.exit_code} before pytest was done"
    if lines.ended in _MEANING:
        return f"{_MEANING[lines.ended]}: {_last_line(text)}"
    if not lines.tests:
        return "no test was collected; tests are functions test_* in files test_*.py"
    return None


def _read(content: bytes) -> _Lines:
    """The recorder's lines. A test can write here too, so anything else than its form is passed over; the worst outcome of an id counts."""
    tests: dict[str, str] = {}
    collected = ended = None
    for raw in content.splitlines():
        match _parsed(raw):
            case ["outcome", str(name), str(outcome)] if outcome in _SEVERITY:
                name = name.encode("utf-8", errors="replace").decode("utf-8")
                tests[name] = max(outcome, tests.get(name, "passed"), key=_SEVERITY.index)
            case ["collected", int(number)]:
                collected = number
            case ["ended", int(code)]:
                ended = code
    return _Lines(tests, collected, ended)


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _last_line(text: str) -> str:
    errors = [line.strip() for line in text.splitlines() if line.strip()]
    named = [line for line in errors if "error" in line.casefold()]
    return (named or errors or ["it said nothing"])[-1][:500]
