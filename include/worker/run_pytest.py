"""Runs pytest inside the seal and tells what becomes of each test by a pipe, one JSON line each. Not part of the zipapp's own process.

``python3 -I -S -B run_pytest.py SITE REPOSITORY [ARGUMENT…]``. This file is copied beside pytest and stands alone, so that the
tests see no module of ours. The pipe is descriptor 3. Lines: ``["collected", [node id…]]``, ``["collect", id, outcome]`` for what
cannot be collected, ``["start", id]``, ``["outcome", id, outcome]``, ``["finish", id]``, ``["ended", exit code]``. judge.py reads
them, in another process, and holds that they come in this order.

pytest and all that it needs are imported before the repository is on the path, and the toolbox stays before it: nothing of the
repository takes the runner's place. The repository's root and ``src`` come before the standard library, as with ``python -m pytest``.
"""

from __future__ import annotations

import fcntl
import importlib
import json
import os
import pkgutil
import site
import sys
from typing import Any

_PIPE = 3
_AS_PLUGINS = ("pytester", "pytester_assertions")  # a conftest may ask for them: then pytest itself imports and rewrites them
_BORROWED = (
    "difflib",
    "doctest",
    "pdb",
    "pprint",
    "unittest",
    "unittest.mock",
    "xml.etree.ElementTree",
    "tempfile",
    "traceback",
    "linecache",
)


class Recorder:
    """A pytest plugin that tells outcomes as they come, past every buffer, and only in the process that it was made in.

    Args:
        pipe: the descriptor to write to.
    """

    def __init__(self, pipe: int) -> None:
        self._pipe, self._pid = pipe, os.getpid()

    def write(self, *line: object) -> None:
        """Write one line whole."""
        rest = json.dumps(line).encode("ascii") + b"\n"
        while rest and os.getpid() == self._pid:
            rest = rest[os.write(self._pipe, rest) :]

    def pytest_collection_finish(self, session: Any) -> None:
        """Tell which tests there are to run."""
        self.write("collected", [item.nodeid for item in session.items])

    def pytest_collectreport(self, report: Any) -> None:
        """Tell that a file cannot be imported as an error under the file's own id."""
        if report.failed:
            self.write("collect", report.nodeid, "error")
        elif report.skipped:
            self.write("collect", report.nodeid, "skipped")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Tell that a test starts."""
        self.write("start", nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Tell an outcome: set-up, call and tear-down each report, the reader keeps the worst. An expected failure counts as skipped."""
        if report.when == "call" or not report.passed:
            failed = "failed" if report.when == "call" else "error"
            self.write("outcome", report.nodeid, failed if report.failed else report.outcome)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Tell that a test is over."""
        self.write("finish", nodeid)


def _load() -> Any:
    """Import pytest and whatever it imports later, while the repository cannot be reached."""
    import pytest

    for module in pkgutil.iter_modules(sys.modules["_pytest"].__path__, "_pytest."):
        if module.name.rpartition(".")[2] not in _AS_PLUGINS:
            importlib.import_module(module.name)
    for name in (*_BORROWED, "iniconfig", "packaging.version", "pluggy", "pygments.lexers", "pygments.formatters"):
        importlib.import_module(name)
    return pytest


def main() -> None:
    """Run the repository's tests; ends the process with pytest's exit code."""
    packages, repository, *arguments = sys.argv[1:]
    recorder = Recorder(fcntl.fcntl(_PIPE, fcntl.F_DUPFD_CLOEXEC, 64))
    os.close(_PIPE)  # tests find the low numbers free, and what they start does not inherit the pipe
    site.setquit()  # -S leaves out exit() and quit(), which tests may use
    sys.path.insert(0, packages)
    pytest = _load()
    sys.path[1:1] = [repository, os.path.join(repository, "src")]
    sys.argv[:] = ["pytest"]
    options = ["--rootdir", repository, "-p", "no:cacheprovider", "--disable-plugin-autoload", "--continue-on-collection-errors"]
    code = int(pytest.main([*options, "--maxfail=0", "--color=no", *arguments], plugins=[recorder]))
    recorder.write("ended", code)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # a thread that a test left behind must not hold up the end


if __name__ == "__main__":
    main()
