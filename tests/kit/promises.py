"""The promises and who holds them: reads the table of ``docs/promises.md``, so that tests and controls stand in one list."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import pytest

from tests.kit.servers import ROOT

_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+)(?:\[([^]`]+)])?)?`")


class Named(NamedTuple):
    """A test by its file and function; without a function: the whole file; with words: its cases whose id holds them."""

    path: str
    test: str
    case: str


class Promise(NamedTuple):
    """A row of the table."""

    words: str
    tests: tuple[Named, ...]
    controls: tuple[Named, ...]


@cache
def promises() -> tuple[Promise, ...]:
    """Read all rows of the table."""
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "promises.md").read_text().splitlines() if line.startswith("| ")]
    return tuple(Promise(words, _named(tests), _named(controls)) for words, tests, controls in rows[1:])


@cache
def controls() -> dict[tuple[str, str], tuple[str, ...]]:
    """Read which tests are controls: (file, function) -> the words that an id of a case must hold one of ("" is in each)."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for named in (named for promise in promises() for named in promise.controls):
        found[named.path, named.test] = (*found.get((named.path, named.test), ()), named.case)
    return found


def held_by(path: str, test: str, case: str) -> list[str]:
    """Find the way back from a test: the words of every promise that it, or its whole file, stands for, as test or as control.

    Args:
        path: of its file, from the root.
        test: its function.
        case: the rest of its id, in brackets; empty: it has no cases.
    """
    found = []
    for promise in promises():
        for named in (*promise.tests, *promise.controls):
            if named.path == path and named.test in ("", test) and named.case in case and promise.words not in found:
                found.append(promise.words)
    return found


def of_item(item: pytest.Item) -> list[str]:
    """As ``held_by``, of a collected test."""
    name, _, case = item.name.partition("[")
    return held_by(item.path.relative_to(ROOT).as_posix(), name, case.removesuffix("]"))


def _named(cell: str) -> tuple[Named, ...]:
    return tuple(Named(*found) for found in _NAMED.findall(cell))
