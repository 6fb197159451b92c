"""Which lane of ``./airlock test`` a test runs in: decided by the fixtures it uses, so that nobody has to remember a mark.

* ``stack``: needs a running Airflow or a whole Airlock. Tests of one group share a process, in the order of their files.
* ``quiet``: holds a wall-clock figure (fixture ``figure``); runs alone, at the end.
* ``fast``: starts no process of ours and is not marked slow.
* all others: side by side, each file in one process, or in one a sandbox engine.

Beside its lane, each test that the third column of ``docs/promises.md`` names has the mark ``control``.
"""

from __future__ import annotations

import pytest

from tests.kit.promises import controls

STACKS = {
    "airflow": "flow",
    "processes": "bubblewrap",
    "stand": "bubblewrap",
    "docker_stand": "docker alone",
    "airlock": "ui",
    "containers": "",  # shared by all processes: its tests are spread
}
"""Fixture of a stack -> the group whose tests run one after another; "": none."""
PROCESSES = {"yard", "node", "module_node", "quick", "engine", "database", "streams", "great_expectations"}
"""Fixtures that start processes of ours, or servers for one test, or import for ten seconds."""


def mark(items: list[pytest.Item]) -> None:
    """Give each test the marks of its lane and its group, and controls theirs."""
    for item in items:
        if is_control(item):
            item.add_marker("control")
        names = set(getattr(item, "fixturenames", ()))
        held = item.get_closest_marker("xdist_group")
        stacks = [group for name, group in STACKS.items() if name in names]
        if stacks or item.get_closest_marker("stack"):
            item.add_marker("stack")
            if group := next(filter(None, stacks), ""):
                item.add_marker(pytest.mark.xdist_group(group))
            continue
        if not held:
            engine = getattr(item, "callspec", None) and item.callspec.params.get("engine")
            item.add_marker(pytest.mark.xdist_group(f"{item.location[0]} {engine or ''}"))
        if "figure" in names:
            item.add_marker("quiet")
        elif not names & PROCESSES and not item.get_closest_marker("slow"):
            item.add_marker("fast")


def is_control(item: pytest.Item) -> bool:
    """True if the list of promises names this test, or this case of it, as a control."""
    test, _, case = item.name.partition("[")
    return any(words in case for words in controls().get((item.location[0], test), ()))
