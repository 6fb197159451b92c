"""Controls of a goal's ways: losses that count, a conflict that goes on from its own commit, an intake that does not look, one that does not settle."""

from __future__ import annotations

import pytest

from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.goals import intake
from include.goals.models import GoalRequest
from include.tasks import rules
from include.tasks.models import Failure, GoesOn, Rework
from include.tasks.reworks import GaveUp
from tests.tasks import test_admit_resumes
from tests.tasks.conftest import World


@pytest.mark.parametrize("counts", [False, True], ids=["as it is", "control: a loss counts"])
def test_control_a_loss_that_counts_ends_the_task(world: World, monkeypatch: pytest.MonkeyPatch, counts: bool) -> None:
    monkeypatch.setitem(rules.CLASSES, Failure.LOST, rules.CLASSES[Failure.LOST]._replace(counted=counts))
    what = []
    for _ in range(3):
        world.admit()
        what.append(type(world.fails(Failure.LOST)))
    assert what == [Rework, Rework, GaveUp if counts else Rework]


@pytest.mark.parametrize("goes_on", [GoesOn.COMMIT, GoesOn.TRANSCRIPT])
def test_control_a_conflict_that_goes_on_from_its_own_commit_is_seen(
    world: World, monkeypatch: pytest.MonkeyPatch, goes_on: GoesOn
) -> None:
    monkeypatch.setitem(rules.CLASSES, Failure.CONFLICT, rules.CLASSES[Failure.CONFLICT]._replace(goes_on=goes_on))
    with pytest.raises(AssertionError):
        test_admit_resumes.test_after_a_conflict_what_was_accepted_is_forgotten(world)


@pytest.mark.parametrize("wrong", ["a branch that is not there", "a repository that is not listed"])
def test_control_an_intake_that_does_not_look_begins_a_goal(world: World, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    (repository,) = (row["name"] for row in world.rows("SELECT name FROM repositories"))
    base = "mian" if "branch" in wrong else "main"
    world.rows("UPDATE repositories SET listed = %s", "branch" in wrong)
    request = GoalRequest(goal="x", repository=repository, base=base, key="k")
    with pytest.raises(BadInput), transaction("airflow") as connection:
        intake.submit(connection, world.settings, request, "ada", unlisted=False)
    monkeypatch.setattr(intake, "_check_names", lambda *_: None)
    monkeypatch.setattr(intake.service, "fetch_base", lambda *_: "")
    with transaction("airflow") as connection:
        assert intake.submit(connection, world.settings, request, "ada", unlisted=False).run.state == "SUBMITTED"


@pytest.mark.parametrize("settled", [True, False], ids=["as it is", "control: not settled"])
def test_control_a_submission_that_nobody_settles_stays_open(world: World, monkeypatch: pytest.MonkeyPatch, settled: bool) -> None:
    if not settled:
        monkeypatch.setattr(intake.service, "set_state", lambda *_: None)
    with transaction("airflow") as connection:
        assert intake.settle(connection, world.run, "r").state == ("CANCELLED" if settled else "SUBMITTED")
