"""Which lane of ``./airlock test`` a test runs in: decided by the fixtures it uses, so that nobody has to remember a mark.

* ``stack``: needs a running Airflow or a whole Airlock. Tests of one group share a process, in the order of their files; long groups come first.
* ``quiet``: holds a wall-clock figure (fixture ``figure``); runs alone, at the end.
* ``fast``: starts no process of ours and is not marked slow.
* all others: side by side, each file in one process, or in one a sandbox engine.

Beside its lane, each test that the third column of ``docs/promises.md`` names has the mark ``control``.
"""

from __future__ import annotations

import pytest

from tests.kit.promises import controls
from tests.kit.scale import LONG, patience

STACKS = {
    "airflow": "flow",
    "stand": "bubblewrap",
    "processes": "bubblewrap",
    "processes_alone": "bubblewrap",
    "docker_stand": "docker",
    "airlock": "docker",
    "containers": "",  # spread over all processes
}
"""Fixture of a stack -> the group whose tests run one after another; "": none."""
FIRST = ("docker", "bubblewrap", "flow", "chaos kills", "chaos points")
"""Long groups, in the order in which they are handed out; then all others as they stand in the files. ``docker`` begins with
what needs its stack alone, so that nobody waits for it later."""
PROCESSES = {"yard", "node", "module_node", "quick", "engine", "database", "streams", "great_expectations"}
"""Fixtures that start processes of ours, or servers for one test, or import for ten seconds."""
HANGS_S = 300.0
"""A test that takes longer on a free machine hangs."""


def mark(items: list[pytest.Item]) -> None:
    """Give each test the marks of its lane and its group, and controls theirs; put the long groups first."""
    for item in items:
        if is_control(item):
            item.add_marker("control")
        names = set(getattr(item, "fixturenames", ()))
        stacks = [group for name, group in STACKS.items() if name in names]
        if "figure" in names:
            item.add_marker("quiet")
        if stacks or item.get_closest_marker("stack"):
            _mark_stack(item, next(filter(None, stacks), ""))
        else:
            _mark_other(item, names)
        if not LONG and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(patience(HANGS_S)))
    items.sort(key=_turn)


def _mark_stack(item: pytest.Item, group: str) -> None:
    item.add_marker("stack")
    if group:
        item.add_marker(pytest.mark.xdist_group(group))


def _mark_other(item: pytest.Item, names: set[str]) -> None:
    if not item.get_closest_marker("xdist_group"):
        engine = getattr(item, "callspec", None) and item.callspec.params.get("engine")
        item.add_marker(pytest.mark.xdist_group(f"{item.location[0]} {engine or ''}".strip()))
    if "figure" not in names and not names & PROCESSES and not item.get_closest_marker("slow"):
        item.add_marker("fast")


def _turn(item: pytest.Item) -> tuple[int, bool]:
    """When its group is handed out, and in it: what needs the stack alone comes first."""
    group = item.get_closest_marker("xdist_group")
    name = group.args[0] if group else ""
    return (FIRST.index(name) if name in FIRST else len(FIRST)), "docker_stand" not in getattr(item, "fixturenames", ())


def is_control(item: pytest.Item) -> bool:
    """True if the list of promises names this test, or this case of it, as a control."""
    test, _, case = item.name.partition("[")
    return any(words in case for words in controls().get((item.location[0], test), ()))
