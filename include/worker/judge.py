"""Reads what a test process tells by its pipe, and holds that it comes as it must. Nothing of the repository is imported here.

The code under test lives in the process that writes these lines, so it can write some of its own: a line that does not fit says so.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

SEVERITY = ("passed", "skipped", "failed", "error")


class Lines(NamedTuple):
    """What was told: the worst outcome of each test, what was collected, the exit code, and the first line that did not fit, in words."""

    tests: dict[str, str]
    collected: int | None = None
    ended: int | None = None
    wrong: str | None = None


def read(content: bytes, whole: bool = True) -> Lines:
    """Read the lines of one run up to the first that does not fit.

    Args:
        content: what came through the pipe.
        whole: the run ended by itself; else the last line may be cut, and whatever is missing is missing.
    """
    reader = _Reader()
    *lines, rest = content.split(b"\n")
    for raw in lines:
        if (wrong := reader.take(_parsed(raw))) is not None:
            return reader.lines(wrong)
    return reader.lines("a line is cut" if rest and whole else None)


class _Reader:
    """Where a run stands after the lines so far."""

    def __init__(self) -> None:
        self.tests: dict[str, str] = {}
        self.waiting: set[str] | None = None
        self.total: int | None = None
        self.now: str | None = None
        self.ended: int | None = None

    def take(self, line: Any) -> str | None:
        """Take one line; returns what is wrong with it."""
        if self.ended is not None:
            return "a line came after the end"
        match line:
            case ["collect", str(name), str(outcome)] if outcome in ("error", "skipped") and self.waiting is None:
                self._note(name, outcome)
            case ["collected", list(names)] if self.waiting is None and all(isinstance(name, str) for name in names):
                self.waiting, self.total = {_plain(name) for name in names}, len(names)
                return "a test was collected twice" if len(self.waiting) != len(names) else None
            case ["start", str(name)] if self.now is None and _plain(name) in (self.waiting or ()):
                self.now = _plain(name)
            case ["outcome", str(name), str(outcome)] if outcome in SEVERITY and _plain(name) == self.now:
                self._note(name, outcome)
            case ["finish", str(name)] if _plain(name) == self.now and self.now in self.tests:
                assert self.waiting is not None
                self.waiting.discard(_plain(name))
                self.now = None
            case ["ended", int(code)] if not isinstance(code, bool):
                self.ended = code
            case _:
                return "a line came that does not belong there"
        return None

    def lines(self, wrong: str | None) -> Lines:
        """Sum up; a test that was neither started nor told is wrong where the run says that it is through."""
        if wrong is None and self.ended in (0, 1) and (self.waiting or self.now):
            wrong = f"{len(self.waiting or ())} tests were collected and not run"
        return Lines(self.tests, self.total, self.ended, wrong)

    def _note(self, name: str, outcome: str) -> None:
        name = _plain(name)
        self.tests[name] = max(outcome, self.tests.get(name, "passed"), key=SEVERITY.index)


def _plain(name: str) -> str:
    return name.encode("utf-8", errors="replace").decode("utf-8")


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None
