"""A goal request is said once: what the model asks for, form, command line and table ask for too; what it cannot keep it refuses."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pydantic import ValidationError

from include.agents.models import Agent
from include.cli import goal as goal_cli
from include.cli.__main__ import read_settings
from include.cli.options import of_model
from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.goals import form, intake
from include.goals.models import GoalRequest
from include.settings import ROOT, Settings, load
from tests.kit import build

GOOD: dict[str, Any] = {"goal": "Do it", "repository": "sample", "key": "k"}
TASK: dict[str, Any] = {"key": "a", "title": "A", "prompt": "Do it"}


def lease(**terms: Any) -> dict[str, Any]:
    return {"plan": {"summary": "s", "tasks": [TASK | {"lease": terms}]}}


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
        ({"deadline": "99999999999999d"}, "deadline", "at most 24855d"),
        ({"deadline": "9" * 5_000 + "d"}, "deadline", "at most 40 characters"),
        ({"deadline": "\u0663h"}, "deadline", "for example 90m or 2h"),  # a digit, of another script
        ({"deadline": "-1d"}, "deadline", "for example 90m or 2h"),
        ({"deadline": "1e5s"}, "deadline", "for example 90m or 2h"),
        ({"budget_usd": 1e-12}, "budget_usd", "at least 0.000001"),
        ({"budget_usd": "1e-12"}, "budget_usd", "at least 0.000001"),
        ({"budget_usd": 1e308}, "budget_usd", "less than or equal to 10000"),
        ({"budget_usd": math.inf}, "budget_usd", "less than or equal to 10000"),
        ({"budget_usd": math.nan}, "budget_usd", "less than or equal to 10000"),
        ({"budget_usd": "nan"}, "budget_usd", "less than or equal to 10000"),
        ({"budget_usd": 10**400}, "budget_usd", "valid number"),
        ({"budget_usd": -0.0}, "budget_usd", "greater than 0"),
        ({"goal": "a\x00b"}, "goal", "leave out the NUL character"),
        ({"goal": "\ud800"}, "goal", "valid string"),
        ({"repository": "\x00"}, "repository", "leave out the NUL character"),
        ({"base": "\x00"}, "base", "leave out the NUL character"),
        ({"agent": "\x00"}, "agent", "leave out the NUL character"),
        ({"key": "\x00"}, "key", "leave out the NUL character"),
        (lease(max_usd=1e-12), "plan.tasks.0.lease.max_usd", "greater than or equal to 0.000001"),
        (lease(max_usd=math.nan), "plan.tasks.0.lease.max_usd", "less than or equal to 1000"),
        (lease(max_usd=1e308), "plan.tasks.0.lease.max_usd", "less than or equal to 1000"),
        (lease(max_minutes=10**30), "plan.tasks.0.lease.max_minutes", "less than or equal to 240"),
        (lease(max_minutes=-1), "plan.tasks.0.lease.max_minutes", "greater than or equal to 1"),
        (lease(max_tokens=2**63), "plan.tasks.0.lease.max_tokens", "less than or equal to 10000000"),
        (lease(max_tokens=1e308), "plan.tasks.0.lease.max_tokens", "as an integer"),
        ({"plan": {"summary": "\x00", "tasks": [TASK]}}, "plan.summary", "leave out the NUL character"),
        ({"plan": {"summary": "s", "tasks": [TASK | {"prompt": "\x00"}]}}, "plan.tasks.0.prompt", "leave out the NUL character"),
    ],
)
def test_what_the_table_cannot_hold_is_refused_by_the_model(change: dict[str, Any], field: str, remedy: str) -> None:
    with pytest.raises(BadInput) as refused:
        intake.read_request(GOOD | change)
    assert refused.value.field == field and remedy in str(refused.value)


@pytest.mark.parametrize(
    "change", [{"deadline": "1s"}, {"deadline": " 007 m "}, {"deadline": "24855d"}, {"budget_usd": 1e-6}, lease(max_usd=1e-6)]
)
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


@pytest.mark.parametrize(("column", "value"), [("deadline_s", 2**31), ("budget_micro", 0), ("text", "a\x00b")])
def test_control_the_table_refuses_what_the_model_lets_nobody_say(settings: Settings, column: str, value: Any) -> None:
    with transaction("owner") as connection:
        build.ground(connection)
        build.goal(connection)
    with pytest.raises((psycopg.DataError, psycopg.IntegrityError)), transaction("owner") as connection:
        connection.execute(sql.SQL("UPDATE goals SET {} = %s").format(sql.Identifier(column)), [value])


@pytest.mark.parametrize("value", ["99999999999999999999", "-1", "1e308", "nan", "inf", "1.5", "9" * 5_000, "stored"])
@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is int])
def test_a_setting_at_the_edge_of_its_type_is_refused_with_its_name(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(f"AIRLOCK_{name.upper()}", raising=False)
    if value == "stored":
        (tmp_path / "runtime.json").write_text(json.dumps({name: 2**63}))
    else:
        monkeypatch.setenv(f"AIRLOCK_{name.upper()}", value)
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    with pytest.raises(BadInput) as refused:
        read_settings()
    assert refused.value.field == f"AIRLOCK_{name.upper()}" and refused.value.remedy


def test_control_the_defaults_and_the_edges_of_settings_pass(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"PG_PORT": "65535", "TEST_TIMEOUT_S": "1", "MODEL_TIMEOUT_S": "86400", "KEEP_EVENTS_DAYS": "36500"}.items():
        monkeypatch.setenv(f"AIRLOCK_{name}", value)
    assert (load(tmp_path).pg_port, load(tmp_path).test_timeout_s) == (65_535, 1)


@pytest.mark.parametrize("usd", [math.nan, math.inf, 1e308, 1e-12, -1, 0])
def test_an_agent_has_money_that_can_be_counted(usd: float) -> None:
    told = {"name": "a", "planner_model": "p", "worker_model": "w", "advice_model": "a", "capabilities": [], "month_usd": 1}
    with pytest.raises(ValidationError, match="day_usd"):
        Agent.model_validate(told | {"day_usd": usd})
    assert Agent.model_validate(told | {"day_usd": 1e-6}).day_usd == 1e-6  # control


def test_the_command_line_says_which_setting_cannot_be_used(tmp_path: Path) -> None:
    environment = os.environ | {"AIRLOCK_HOME": str(tmp_path), "AIRLOCK_TEST_TIMEOUT_S": "9" * 30}
    done = subprocess.run([sys.executable, "-m", "include.cli", "status"], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "") and "AIRLOCK_TEST_TIMEOUT_S" in done.stderr and "Traceback" not in done.stderr
