"""The one client of Airflow's REST API: it logs in once, again when its token is old, and tells no from no answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from include import settings as settings_module
from include.airflow_api import client
from include.airflow_api.client import Airflow
from include.airflow_api.door import ask_door, ask_door_async
from include.airflow_api.models import ReworkAsk
from include.errors import Refused, Unavailable
from include.settings import Settings
from tests.airflow_api.server import Answer, Asked, Said, airflow_that_answers
from tests.conftest import free_port

ASK = ReworkAsk(dag_id="goal_a", run_id="r", rework="0", ti_id="1")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """The settings of a home whose API server is the test's."""
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    monkeypatch.setenv("AIRLOCK_API_PORT", str(free_port()))
    settings_module.settings.cache_clear()
    client._tokens.clear()
    yield settings_module.settings()
    settings_module.settings.cache_clear()


def logged_in(answer: Answer) -> Answer:
    """As an answer, with logins that always succeed."""
    return lambda asked: Said(201, {"access_token": "t"}) if asked.path == "/auth/token" else answer(asked)


def test_one_login_serves_all_questions_of_a_process(here: Settings) -> None:
    row = {"dag_run_id": "r", "state": "running", "conf": {"key": "k"}, "new_in_the_next_version": 1}
    with airflow_that_answers(here.api_port, logged_in(lambda _: Said(200, row))) as asked:
        for _ in range(2):
            with Airflow(here) as airflow:
                run = airflow.run("goal_a", "a+b/c")
                assert run is not None and (run.state, run.conf) == ("running", {"key": "k"})
    assert [one.path for one in asked] == ["/auth/token", *["/api/v2/dags/goal_a/dagRuns/a%2Bb%2Fc"] * 2]
    assert [one.token for one in asked] == ["", "t", "t"]


def test_an_old_token_is_replaced_once(here: Settings) -> None:
    given = iter(["old", "new"])

    def answer(asked: Asked) -> Said:
        if asked.path == "/auth/token":
            return Said(201, {"access_token": next(given)})
        return Said(200, {"dag_runs": []}) if asked.token == "new" else Said(401)

    with airflow_that_answers(here.api_port, answer) as asked, Airflow(here) as airflow:
        assert airflow.runs("submit_goal", ("queued", "running")) == ()
    assert [one.token for one in asked] == ["", "old", "", "new"]
    assert asked[-1].path == "/api/v2/dags/submit_goal/dagRuns?state=queued&state=running&limit=100"


def test_who_is_refused_does_not_ask_for_ever(here: Settings) -> None:
    with airflow_that_answers(here.api_port, logged_in(lambda _: Said(401))) as asked, Airflow(here) as airflow:
        assert airflow.ask("GET", "/x").status_code == 401
    assert len(asked) == 4
    client._tokens.clear()
    with airflow_that_answers(here.api_port, lambda _: Said(403)), Airflow(here) as airflow, pytest.raises(Unavailable, match="refuses"):
        airflow.run("a", "b")


@pytest.mark.parametrize(("status", "what"), [(404, "none"), (500, "no answer"), (503, "no answer")])
def test_that_there_is_none_is_told_from_no_answer(here: Settings, status: int, what: str) -> None:
    with airflow_that_answers(here.api_port, logged_in(lambda _: Said(status))), Airflow(here) as airflow:
        for look in (lambda: airflow.run("a", "r"), lambda: airflow.step("a", "r", "t.lease")):
            if what == "none":
                assert look() is None
            else:
                with pytest.raises(Unavailable, match=f"answers {status}"):
                    look()


def test_nobody_there_is_unavailable(here: Settings) -> None:
    with Airflow(here) as airflow, pytest.raises(Unavailable, match="does not answer"):
        airflow.run("a", "r")


def test_why_a_form_was_refused_is_passed_on(here: Settings) -> None:
    words = {"detail": "'deadline' does not match"}
    with airflow_that_answers(here.api_port, logged_in(lambda _: Said(422, words))), Airflow(here) as airflow:
        answer = airflow.trigger("submit_goal", "r", {})
        assert (answer.status_code, answer.detail) == (422, "'deadline' does not match")
    with airflow_that_answers(here.api_port, logged_in(lambda _: Said(500, b"<html>"))), Airflow(here) as airflow:
        assert airflow.trigger("submit_goal", "r", {}).detail == "Airflow answers 500"


def test_a_failure_is_the_last_error_of_a_failed_step(here: Settings) -> None:
    lines = [
        {"event": "x", "error_detail": [{"exc_type": "BadInput", "exc_value": "deadline: too short"}]},
        "a line of text",
        {"event": "y"},
    ]

    def answer(asked: Asked) -> Said:
        if asked.path.endswith("/logs/1"):
            return Said(200, {"content": lines})
        return Said(200, {"task_instances": [{"task_id": "plan", "state": "success"}, {"task_id": "intake", "state": "failed"}]})

    with airflow_that_answers(here.api_port, logged_in(answer)), Airflow(here) as airflow:
        assert airflow.failure("submit_goal", "r") == "deadline: too short"


# -- the door ------------------------------------------------------------------------------------------------------------


def test_the_door_is_asked_until_it_answers(here: Settings) -> None:
    answers = iter([Said(404), Said(409), Said(200, {"cleared": 5, "outcome": "cleared"})])
    with airflow_that_answers(here.api_port, logged_in(lambda _: next(answers))) as asked:
        assert ask_door(ASK, 30)
    assert [one.path for one in asked[1:]] == ["/airlock/dags/goal_a/rework"] * 3
    assert asked[-1].body == {"rework": "0", "run_id": "r", "ti_id": "1"}


def test_the_door_that_says_no_is_believed(here: Settings) -> None:
    with airflow_that_answers(here.api_port, logged_in(lambda _: Said(403, {"detail": "another task instance"}))):
        with pytest.raises(Refused, match="another task instance"):
            ask_door(ASK, 30)
        with pytest.raises(Refused):
            asyncio.run(ask_door_async(ASK))


def test_a_stale_decision_is_not_carried_out(here: Settings) -> None:
    stale = Said(200, {"cleared": 0, "outcome": "stale epoch"})
    with airflow_that_answers(here.api_port, logged_in(lambda _: stale)):
        assert not ask_door(ASK, 30)
        assert asyncio.run(ask_door_async(ASK)).outcome == "stale epoch"


def test_control_without_a_door_the_step_gives_up_in_time(here: Settings) -> None:
    assert not ask_door(ASK, 0.6)
