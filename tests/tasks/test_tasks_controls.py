"""Controls of rework: a loss that counts ends the task after three; a conflict that goes on from its own commit is seen."""

from __future__ import annotations

import pytest

from include.tasks import rules
from include.tasks.models import Failure, GoesOn, Rework
from include.tasks.service import GaveUp
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
