"""The same submission by Airflow's REST API: what the form's schema refuses, keys, waiting, and a second run of a goal's own DAG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from include.clock import new_id
from tests.conftest import wait_until
from tests.kit.stack import Stack

pytestmark = pytest.mark.slow
TWICE = "UI twice: say that the sum was looked at"


def submit(airlock: Stack, **conf: Any) -> str:
    """Trigger submit_goal on the tiny project; returns the id of its run."""
    run = f"rest-{new_id().hex[-12:]}"
    answer = airlock.airflow.trigger("submit_goal", run, {"goal": TWICE, "repository": "small"} | conf)
    assert answer.status_code == 200, answer.detail
    return run


def ended(airlock: Stack, dag: str, run: str, seconds: float = 180) -> dict[str, Any]:
    """The row of an Airflow run that has ended."""
    row: dict[str, Any] = wait_until(f"{dag} {run} ends", lambda: airlock.run_when_ended(dag, run), seconds)
    return row


@pytest.mark.parametrize(
    ("conf", "field"),
    [
        ({"goal": None}, "goal"),
        ({"goal": ""}, "goal"),
        ({"budget_usd": 0}, "budget_usd"),
        ({"deadline": "soon"}, "deadline"),
        ({"deadline": "0m"}, "deadline"),
        ({"landing": "later"}, "landing"),
        ({"wait": "perhaps"}, "wait"),
        ({"plan": []}, "plan"),
    ],
)
def test_what_the_schema_can_say_is_a_400_that_names_the_field(airlock: Stack, conf: dict[str, Any], field: str) -> None:
    answer = airlock.airflow.trigger("submit_goal", f"rest-{new_id().hex[-12:]}", {"goal": TWICE, "repository": "small"} | conf)
    assert answer.status_code == 400, answer.detail
    assert answer.detail.startswith(f"Invalid input for param {field}:")


def test_the_same_run_id_twice_is_a_409(airlock: Stack, small: Path) -> None:
    conf = {"goal": "UI twice: once", "repository": "nowhere"}
    assert [airlock.airflow.trigger("submit_goal", "rest-same", conf).status_code for _ in range(2)] == [200, 409]
    assert ended(airlock, "submit_goal", "rest-same")["state"] == "failed"
    assert "'nowhere' is not registered" in airlock.step_log("submit_goal", "rest-same", "intake")


def test_a_key_is_one_goal_waited_for_and_run_again(airlock: Stack, small: Path) -> None:
    """One goal in three acts, because a goal takes its time."""
    first = submit(airlock, key="ui-key", wait=True)
    wait_until("the goal is taken in", lambda: airlock.sql("SELECT 1 FROM goals WHERE idempotency_key = 'ui-key'"), 60)
    second = submit(airlock, key="ui-key", wait=True)
    other = submit(airlock, key="ui-key", goal=f"{TWICE}, and the difference too")
    assert ended(airlock, "submit_goal", other)["state"] == "failed"
    words = airlock.step_log("submit_goal", other, "intake")
    assert "key: 'ui-key' was used for another goal" in words and "Use a new key." in words
    rows = [ended(airlock, "submit_goal", run) for run in (first, second)]
    assert [row["state"] for row in rows] == ["success", "success"]
    (goal,) = airlock.sql("SELECT dag_id FROM goals WHERE idempotency_key = %s", "ui-key")
    (run,) = runs_of(airlock, goal["dag_id"])
    assert run["state"] == "COMPLETED"
    assert all(row["end_date"] >= f"{run['ended_at']:%Y-%m-%dT%H:%M:%S}" for row in rows)  # wait: the submissions ended with the goal
    again(airlock, goal["dag_id"], run)


def again(airlock: Stack, dag: str, first: dict[str, Any]) -> None:
    """A second run of the goal's own DAG, as the UI's Trigger button makes it: from the base branch as it is now."""
    assert airlock.airflow.trigger(dag, "by-hand", {}).status_code == 200
    assert ended(airlock, dag, "by-hand")["state"] == "success"
    second = next(run for run in runs_of(airlock, dag) if run["run_id"] == "by-hand")
    assert second["state"] == "COMPLETED", second["reason"]
    assert second["base_commit"] == first["landed_commit"] != second["landed_commit"]


def runs_of(airlock: Stack, dag: str) -> list[dict[str, Any]]:
    return airlock.sql("SELECT r.* FROM goal_runs r JOIN goals g ON g.id = r.goal WHERE g.dag_id = %s ORDER BY r.id", dag)


def test_wait_is_red_when_the_goal_did_not_land(airlock: Stack, small: Path) -> None:
    """The negative control: without ``wait``, the same submission ends green although its goal fails."""
    plan = {"summary": "Nothing.", "tasks": [{"key": "idle", "title": "Nothing", "prompt": "Do nothing.", "touches": ["calc.py"]}]}
    goal = "UI idle: a worker that hands in nothing"
    leaves = submit(airlock, goal=goal, plan=plan)
    assert ended(airlock, "submit_goal", leaves)["state"] == "success", airlock.airflow.failure("submit_goal", leaves)
    waits = submit(airlock, goal=goal, plan=plan, wait=True)
    assert ended(airlock, "submit_goal", waits, 300)["state"] == "failed"
    (goal,) = airlock.sql("SELECT dag_id FROM goals WHERE idempotency_key = %s", waits)
    (run,) = runs_of(airlock, goal["dag_id"])
    assert (run["state"], run["landed_commit"]) == ("FAILED", None), airlock.airflow.failure(goal["dag_id"], run["run_id"])
    assert f"The goal ended FAILED: {run['reason']}"[:60] in airlock.airflow.failure("submit_goal", waits)
    (other,) = airlock.sql("SELECT dag_id FROM goals WHERE idempotency_key = %s", leaves)
    wait_until("the goal that nobody waited for ends too", lambda: runs_of(airlock, other["dag_id"])[0]["ended_at"], 180)
    assert runs_of(airlock, other["dag_id"])[0]["state"] == "FAILED"
