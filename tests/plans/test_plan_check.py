"""The plan check finds every kind of broken plan, names it, and lets a good one through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.plans import planner, rules
from include.plans.models import Plan

GOOD: dict[str, Any] = {
    "summary": "s",
    "tasks": [
        {"key": "core", "title": "Core", "prompt": "p"},
        {"key": "left", "title": "Left", "prompt": "p", "depends_on": ["core"]},
        {"key": "right", "title": "Right", "prompt": "p", "depends_on": ["core"]},
        {"key": "join", "title": "Join", "prompt": "p", "depends_on": ["left", "right"]},
    ],
}


def findings(change: dict[str, Any], task: int = 1, max_tasks: int = 10, max_width: int = 2) -> list[str]:
    document = json.loads(json.dumps(GOOD))
    document["tasks"][task].update(change)
    return rules.check(
        Plan.model_validate(document), rules.Limits(["python_developer"], ["test", "git-commit"], 5.0, 7200, max_tasks, max_width)
    )


def test_a_good_plan_has_no_findings() -> None:
    assert findings({}) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"key": "core"}, "used twice"),
        ({"key": "land"}, "is taken"),
        ({"depends_on": ["nowhere"]}, "not in the plan"),
        ({"depends_on": ["join"]}, "circle"),
        ({"depends_on": ["left"]}, "circle"),
        ({"worker": "wizard"}, "unknown worker"),
        ({"capabilities": ["pkg-install"]}, "may not grant"),
        ({"lease": {"max_usd": 6}}, "budget"),
        ({"lease": {"max_minutes": 121}}, "deadline"),
    ],
)
def test_each_broken_rule_is_named(change: dict[str, Any], word: str) -> None:
    found = findings(change)
    assert found and any(word in finding for finding in found), found


def test_width_and_size_are_bounded() -> None:
    assert "side by side" in findings({}, max_width=1)[0]
    assert "4 tasks" in findings({}, max_tasks=3)[0]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"summary": "s", "tasks": []}', '{"summary": "s", "tasks": [{"key": "A B", "title": "t", "prompt": "p"}]}',
     '{"summary": "s", "tasks": [{"key": "a", "title": "t", "prompt": "p", "shell": "rm"}]}', "NaN", "[" * 100_000],
)  # fmt: skip
def test_what_is_no_plan_becomes_findings_and_never_an_exception(text: str) -> None:
    assert isinstance(planner.parse(text), list)


def test_the_published_schema_is_fresh() -> None:
    stored = Path(__file__).parents[2] / "docs" / "plan.schema.json"
    assert stored.read_text() == planner.schema(), (
        "run: python -c 'from include.plans import planner; print(planner.schema(), end=\"\")' > docs/plan.schema.json"
    )
