"""A goal request is said once: what the model asks for, form, command line and table ask for too; what it cannot keep it refuses."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from include.cli import goal as goal_cli
from include.cli.options import of_model
from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.goals import form, intake
from include.goals.models import GoalRequest
from include.settings import Settings
from tests.kit import build

GOOD: dict[str, Any] = {"goal": "Do it", "repository": "sample", "key": "k"}


@pytest.mark.parametrize(
    ("change", "field", "remedy"),
    [
        ({"deadline": "0m"}, "deadline", "at least 1s"),
        ({"deadline": "00d"}, "deadline", "at least 1s"),
        ({"deadline": "24856d"}, "deadline", "at most 24855d"),
        ({"deadline": "soon"}, "deadline", "for example 90m or 2h"),
        ({"budget_usd": 1e-7}, "budget_usd", "at least 0.000001"),
        ({"budget_usd": 0}, "budget_usd", "greater than 0"),
        ({"agent": ""}, "agent", "at least 1 character"),
    ],
)
def test_what_the_table_cannot_hold_is_refused_by_the_model(change: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(BadInput) as refused:
        intake.read_request(GOOD | change)
    assert refused.value.field == field and remedy in str(refused.value)


@pytest.mark.parametrize("change", [{"deadline": "1s"}, {"deadline": " 007 m "}, {"deadline": "24855d"}, {"budget_usd": 1e-6}])
def test_control_the_least_and_the_most_pass_the_model_and_the_table(settings: Settings, change: dict[str, Any]) -> None:
    request = intake.read_request(GOOD | change)
    with transaction("owner") as connection:
        build.ground(connection)
        goal = build.goal(connection, **request.model_dump())
    assert goal.request_sha256 == request.sha256


def test_the_form_asks_for_each_field_of_the_model_and_no_other() -> None:
    shown = form.fields()
    assert set(shown) == {*GoalRequest.model_fields, "wait"}
    for name, field in GoalRequest.model_fields.items():
        assert shown[name]["title"] == field.title and shown[name]["description"], name
        assert shown[name].get("default") == (None if field.is_required() else field.default), name
        assert ("default" in shown[name]) is (name not in ("goal", "repository")), name
    assert (shown["budget_usd"]["exclusiveMinimum"], shown["budget_usd"]["maximum"]) == (0, 10_000)
    assert shown["landing"]["enum"] == list(shown["landing"]["values_display"]) == ["per_goal", "per_task"]


@pytest.mark.parametrize("deadline", ["0m", "00h", "5", "m", "soon", "-1h", "1w"])
def test_the_forms_pattern_refuses_what_the_model_refuses(deadline: str) -> None:
    pattern = form.fields()["deadline"]["pattern"]
    assert not re.search(pattern, deadline)
    with pytest.raises(BadInput):
        intake.read_request(GOOD | {"deadline": deadline})
    assert re.search(pattern, "90m") and re.search(pattern, "010 d")  # control


def test_the_command_line_has_an_option_for_each_field_with_the_models_default() -> None:
    asked = inspect.signature(goal_cli.submit).parameters
    assert [*asked] == [*GoalRequest.model_fields, "wait", "as_json"]
    for name in ("base", "agent", "budget_usd", "deadline", "landing"):
        assert asked[name].default == GoalRequest.model_fields[name].default
        assert asked[name].annotation.__metadata__[0].help == GoalRequest.model_fields[name].description


def test_a_command_gets_what_was_asked_for_and_its_own_options_apart() -> None:
    got: list[Any] = []

    @of_model(GoalRequest)
    def command(asked: dict[str, Any], wait: bool = False) -> None:
        got.append((asked, wait))

    command(**dict.fromkeys(GoalRequest.model_fields, 1), wait=True)
    assert got == [(dict.fromkeys(GoalRequest.model_fields, 1), True)]
