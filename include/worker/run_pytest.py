"""Runs pytest inside the seal and writes what becomes of each test, one JSON line each. Not part of the zipapp's own process.

``python3 -I -S -B run_pytest.py SITE REPOSITORY OUTCOMES``. This file is copied beside pytest and stands alone, so that the
tests see no module of ours. Lines: ``["collected", n]``, ``["outcome", node id, outcome]``, ``["ended", exit code]``. Without
the last one, something ended the process before pytest did. The repository's root and ``src`` come first on the path, as with
``python -m pytest`` in a source tree.
"""

from __future__ import annotations

import json
import os
import site
import sys
from typing import Any


class Recorder:
    """A pytest plugin that writes outcomes as they come, past every buffer.

    Args:
        path: the file to append to.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def write(self, *line: object) -> None:
        """Append one line."""
        os.write(self._file, json.dumps(line).encode("ascii") + b"\n")

    def pytest_collection_finish(self, session: Any) -> None:
        """Write how many tests there are to run."""
        self.write("collected", len(session.items))

    def pytest_collectreport(self, report: Any) -> None:
        """Write a file that cannot be imported as an error under the file's own id."""
        if report.failed:
            self.write("outcome", report.nodeid, "error")
        elif report.skipped:
            self.write("outcome", report.nodeid, "skipped")

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Write an outcome: set-up, call and tear-down each report, the reader keeps the worst. An expected failure counts as skipped."""
        if report.when == "call" or not report.passed:
            failed = "failed" if report.when == "call" else "error"
            self.write("outcome", report.nodeid, failed if report.failed else report.outcome)


def main() -> None:
    """Run the repository's tests; ends the process with pytest's exit code."""
    packages, repository, outcomes = sys.argv[1:4]
    recorder = Recorder(outcomes)
    site.setquit()  # -S leaves out exit() and quit(), which tests may use
    sys.path[:0] = [repository, os.path.join(repository, "src"), packages]
    sys.argv[:] = ["pytest"]
    import pytest

    options = ["--rootdir", repository, "-p", "no:cacheprovider", "--continue-on-collection-errors", "--maxfail=0", "--color=no"]
    code = int(pytest.main(options, plugins=[recorder]))
    recorder.write("ended", code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that a test left behind must not hold up the end


if __name__ == "__main__":
    main()
