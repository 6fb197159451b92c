"""A seeded walk over the real services, 10,000 steps long for a release: after each step the database is what a model in Python says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from include.database.unit_of_work import transaction
from include.settings import Settings
from include.tasks import reworks
from include.tasks.models import AttemptRef, Failure, Rework
from include.tasks.reworks import Asker
from tests.kit import build
from tests.kit.scale import count
from tests.state.operations import MOVES, OPERATIONS
from tests.state.world import Divergence, World, make_mirror

STEPS = count(1_500, 10_000)


@pytest.fixture
def make(settings: Settings, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Worlds on this test's database."""
    make_mirror(tmp_path)
    with transaction("owner") as connection:
        build.ground(connection)
        build.node(connection, capacity=10_000)
        connection.execute("UPDATE nodes SET heartbeat_at = now() + interval '1 hour'")
    worlds: list[World] = []

    def make_one(seed: int, illegal: float = 0.05) -> World:
        worlds.append(World(settings.model_copy(update={"home": tmp_path}), MOVES, seed, illegal))
        return worlds[-1]

    yield make_one
    for world in worlds:
        world.close()


@pytest.mark.slow
@pytest.mark.sized
@pytest.mark.timeout(1_800)  # 10,000 steps: 79 s at a load of 13 on two cores, 469 s at 27
def test_ten_thousand_steps_and_no_divergence(make: Callable[..., World], capsys: pytest.CaptureFixture[str]) -> None:
    world, begun = make(20261128), time.monotonic()  # a seed with which every operation has done something after 1,000 steps
    world.walk(STEPS)
    took = time.monotonic() - begun
    with capsys.disabled():
        changed = ", ".join(f"{name} {world.did[name]}/{tried}" for name, tried in sorted(world.tried.items()))
        print(f"\n  {world.steps} steps in {took:.1f} s, divergences 0; changed/tried: {changed}")
    assert world.steps >= STEPS
    idle = {"warden starts", "time passes", "illegal"}  # change nothing that the model holds
    assert [name for name in OPERATIONS if name not in idle and not world.did[name]] == []


@pytest.mark.parametrize("table", ["task_runs", "goal_runs", "attempts"])
def test_control_without_the_guard_the_model_reports_it(make: Callable[..., World], table: str) -> None:
    with transaction("owner") as connection:
        connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER guard")
    with pytest.raises(Divergence):
        make(1, illegal=0.3).walk(STEPS)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("UPDATE task_runs SET state = 'VERIFYING' WHERE state = 'EXECUTING'", "tasks: the database says"),  # a second writer
        ("UPDATE attempts SET counted = NOT counted", "attempts: the database says"),
        ("DELETE FROM reworks", "reworks: the database says"),
        ("UPDATE leases SET revoked_at = clock_timestamp() WHERE revoked_at IS NULL", "(leases|tasks|attempts): the database says"),
    ],
)
def test_control_what_changes_behind_the_models_back_is_seen(make: Callable[..., World], broken: str, words: str) -> None:
    world = make(2)
    with pytest.raises(Divergence, match=words):
        for _ in range(300):
            with transaction("owner") as connection:
                connection.execute(broken)  # type: ignore[call-overload]
            world.walk(5)


def test_one_failure_that_two_steps_see_counts_once(make: Callable[..., World]) -> None:
    # A look of the lease step and the verify step may both find the same attempt red: with two of three attempts used there is a third.
    world = make(3)
    world.begin()
    task = f"{world.run}-base"
    for epoch in (1, 2):
        world.focus = task
        OPERATIONS["admit"][0](world)(world)
        for ti in ("ti-a", "ti-b", "ti-a"):
            decided = world.do(
                "airflow",
                lambda c, e=epoch, t=ti: reworks.fail_attempt(c, world.settings, Asker(AttemptRef(task, e), t), Failure.RED, "red"),
            )
            assert isinstance(decided, Rework) and decided.ti_id == ti
        world.model["tasks"][task][0] = "PENDING_RETRY"
        world.end_attempt(task, epoch)
        world.model["reworks"] += [[task, epoch, ti] for ti in ("ti-a", "ti-b")]
        world.check()
    assert world.counted(task) == 2
