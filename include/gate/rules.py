"""From a test report, the base's own run and a diff to the facts that a suite judges. Pure; whatever is missing counts against the work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from include.gate.models import Allowed, Facts, TestReport
from include.repository.models import FileChange

MAX_NAMES = 50
MAX_NAME_CHARS = 300
_BAD = frozenset({"failed", "error"})


def facts_for(report: TestReport, base_tests: Mapping[str, str], changes: Sequence[FileChange], bounds: Allowed) -> Facts:
    """Compare a test run with the base's own, and a diff with what was allowed.

    Args:
        report: of the run on exactly the tree that would be merged. One with a ``problem`` counts as not run.
        base_tests: outcome per test id of the base commit.
        changes: what the merge would change on its target.
        bounds: what was allowed.
    """
    failures = [name for name, outcome in report.tests.items() if outcome in _BAD and base_tests.get(name) not in _BAD]
    gone = gone_tests(base_tests, report.tests)
    outside = [change.path for change in changes if not is_inside(change.path, bounds.touches)]
    return Facts(
        kind=bounds.suite,
        ran=int(report.exit_code is not None and not report.problem),
        exit_agrees=int(exit_agrees(report)),
        tests=len(report.tests),
        passed=sum(outcome == "passed" for outcome in report.tests.values()),
        new_failures=len(failures),
        gone_tests=len(gone),
        files_changed=len(changes),
        outside_touches=len(outside),
        cost_micro=bounds.cost_micro,
        max_cost_micro=bounds.max_cost_micro,
        new_failure_names=_names(failures),
        gone_test_names=_names(gone),
        outside_paths=_names(outside),
        problem=(report.problem or "")[:2000],
        **_harness_facts(report, base_tests, bounds.touches),
    )


def _harness_facts(report: TestReport, base_tests: Mapping[str, str], touches: Sequence[str]) -> dict[str, Any]:
    """What the change did to the tests that judge it, and to their surroundings."""
    rewritten = [name for name, outcome in report.replaced.items() if outcome in _BAD and base_tests.get(name) not in _BAD]
    asked, told = ([_side_by_side(report, name) for name in part] for part in _parted(rewritten, touches))
    asked_harness, told_harness = _parted(report.harness, touches)
    return {
        "tampered": len(report.tampered),
        "rewritten": len(asked),
        "rewritten_named": len(told),
        "harness": len(asked_harness),
        "harness_named": len(told_harness),
        "rewritten_names": _names(asked),
        "rewritten_named_names": _names(told),
        "harness_paths": _names(asked_harness),
        "harness_named_paths": _names(told_harness),
        "tampered_words": _names(report.tampered),
    }


def _parted(names: Iterable[str], touches: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part what lies in files that the task does not name from what lies in files that it does; a glob names nothing."""
    parts: tuple[list[str], list[str]] = ([], [])
    for name in names:
        parts[name.split("::", 1)[0] in touches].append(name)
    return parts


def _side_by_side(report: TestReport, name: str) -> str:
    return f"{name[:200]} (as it was: {report.replaced[name]}; as it is now: {report.tests.get(name, 'gone')})"


def exit_agrees(report: TestReport) -> bool:
    """True if pytest's exit code says the same as the outcomes: 0 nothing failed, 1 something did, 2 with errors of collection."""
    outcomes = set(report.tests.values())
    match report.exit_code:
        case 0:
            return bool(outcomes) and not outcomes & _BAD
        case 1:
            return bool(outcomes & _BAD)
        case 2:
            return "error" in outcomes
        case _:
            return False


def gone_tests(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Ids of the base's run that are absent now, or that ran then and are skipped now.

    A file that could not be collected before (an ``error`` under the file's own name) is not gone if its tests are there now.
    """
    files = {name.split("::", 1)[0] for name in now if "::" in name}
    return [name for name, outcome in before.items() if _is_gone(name, outcome, now.get(name), files)]


def _is_gone(name: str, before: str, now: str | None, files: set[str]) -> bool:
    if now is None:
        return not (before == "error" and name in files)
    return now == "skipped" and before != "skipped"


def is_inside(path: str, globs: Iterable[str]) -> bool:
    """True if one of the globs allows a path. ``*`` and ``?`` stay within a folder, ``**`` spans folders, ``name/`` means all below it."""
    return any(_compiled(glob).fullmatch(path) for glob in globs)


@lru_cache(maxsize=1024)
def _compiled(glob: str) -> re.Pattern[str]:
    glob = glob.removeprefix("./").removeprefix("/")
    parts = (glob + "**" if glob.endswith("/") else glob).split("/")
    pattern = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            pattern += ".+" if last else "(?:[^/]+/)*"
        else:
            pattern += _segment(part) + ("" if last else "/")
    return re.compile(pattern, re.DOTALL)


def _segment(part: str) -> str:
    pieces = re.split(r"(\*+|\?|\[!?[^\]/]+\])", part)
    return "".join(_piece(piece) for piece in pieces)


def _piece(piece: str) -> str:
    if piece.startswith("*"):
        return "[^/]*"
    if piece == "?":
        return "[^/]"
    if re.fullmatch(r"\[!?[^\]/]+\]", piece):
        negated = piece.startswith("[!")
        letters = re.sub(r"([\\^\[&~|])", r"\\\1", piece[2 if negated else 1 : -1])
        return f"(?!/)[{'^' if negated else ''}{letters}]"
    return re.escape(piece)


def _names(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name[:MAX_NAME_CHARS] for name in names[:MAX_NAMES])
