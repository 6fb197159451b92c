"""A step that was killed between its decision and the door: its next try, which is another task instance, has the decision carried out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from include.clock import new_id
from include.database.unit_of_work import transaction
from include.tasks import reworks
from include.tasks.models import AttemptRef, Failure
from include.tasks.reworks import Asker
from tests.merge.world import RUN, World

if TYPE_CHECKING:
    from include.flow.steps.base import Step


pytestmark = pytest.mark.slow  # Airflow is imported


@pytest.fixture
def moved(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Two tasks were verified on the same base, and the first has merged. No door is there, as when it dies with the step."""
    from include.flow.steps import base, merge, verify  # Airflow: seconds of CPU, also where no test of these runs

    monkeypatch.setattr(base, "DOOR_PATIENCE_S", 0.1)
    for step in (merge, verify):
        monkeypatch.setattr(step, "settings", lambda: world.settings)
    for key in ("a", "b"):
        world.verify(world.work(key, {f"{key}_new.py": "N = 1\n"}))
    world.merge(f"{RUN}-a")
    return world


def merge_step() -> Step:
    from include.flow.steps.merge import MergeStep

    return MergeStep(task_id="merge", task_key="b")


def verify_step() -> Step:
    from include.flow.steps.verify import VerifyStep

    return VerifyStep(task_id="verify", task_key="b")


def next_try(step: Step) -> tuple[str, dict[str, Any]]:
    """Run a step as a new try; returns its task-instance id and what its trigger will ask the door."""
    from airflow.sdk.exceptions import TaskDeferred

    ti = SimpleNamespace(dag_id="g", id=new_id())
    with pytest.raises(TaskDeferred) as deferred:
        step.advance({"ti": ti, "run_id": "r"})
    return str(ti.id), deferred.value.trigger.ask  # type: ignore[attr-defined]


def asked(world: World, said: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """The decision that a try asks for; the door hears only the task instance that made it."""
    ti_id, ask = said
    row = world.row("SELECT ti_id, steps, epoch FROM reworks WHERE id = %s", ask["rework"])
    assert row["ti_id"] == ask["ti_id"] == ti_id
    return row


def test_merge_that_found_the_branch_moved(moved: World) -> None:
    first, second = (asked(moved, next_try(merge_step())) for _ in range(2))
    assert first["steps"] == second["steps"] == ["verify", "merge"] and first["ti_id"] != second["ti_id"]
    assert moved.row("SELECT state FROM task_runs WHERE key = 'b'")["state"] == "VERIFYING"


def test_verify_that_gave_the_attempt_up(moved: World) -> None:
    with transaction("airflow") as connection:
        reworks.fail_attempt(connection, moved.settings, Asker(AttemptRef(f"{RUN}-b", 1), "ti"), Failure.RED, "The tests fail.")
    assert "admit" in asked(moved, next_try(verify_step()))["steps"]
    assert moved.row("SELECT state, epoch FROM task_runs WHERE key = 'b'") == {"state": "PENDING_RETRY", "epoch": 1}


@pytest.mark.parametrize("how", ["carried out", "control: nobody looks"])
def test_without_an_open_decision_it_fails(moved: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """As before: a merge that a person cleared alone has no green verdict, and says so."""
    from airflow.sdk.exceptions import AirflowFailException

    next_try(merge_step())
    if how == "carried out":
        with transaction("owner") as connection:
            connection.execute("UPDATE reworks SET cleared_at = now()")
    else:
        monkeypatch.setattr(reworks, "take_over", lambda *_: None)
    with pytest.raises(AirflowFailException, match="VERIFYING"):
        next_try(merge_step())
