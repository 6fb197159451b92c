"""A lease step that a person marked success: our tables decide, so nothing is verified, and nothing merges."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from include.database.unit_of_work import transaction
from include.errors import IllegalTransition
from include.goals import service as goals
from include.goals.models import LockedGoalRun
from include.leases import service as leases
from include.merge import candidates, service
from include.merge.candidates import NotVerifiable, Opened, Wanted
from include.plans.models import Plan, Task
from include.repository import quarantine, trees
from include.repository.models import Candidate
from include.tasks import service as tasks
from include.tasks.models import Failure, TaskRunState
from tests.kit import build
from tests.merge.world import RUN, World
from tests.repository.people import Repo, hand_in, make_worker

PLAN = Plan(summary="One.", tasks=(Task(key="a", title="A", prompt="Do."),)).model_dump_json()
Open = Callable[..., Opened | NotVerifiable]


@pytest.fixture
def marked(world: World) -> World:
    """An attempt was at work and half done when its lease step was marked success: the sandbox is gone, what it had written was kept."""
    worker = make_worker(world.settings, world.mirror, world.base, world.folder / "worker")
    worker.commit({"half.py": "H = 1\n"}, "half of it")
    handin = hand_in(worker, world.folder / "handin").read_bytes()
    with transaction("owner") as connection:
        lease = build.attempt(connection, build.task(connection, RUN, "a"), commit=world.base)
        build.task(connection, RUN, "a", TaskRunState.EXECUTING)
        leases.revoke_task(connection, lease.attempt.task_run, "marked")
        build.ended(connection, lease.lease)
        connection.execute("INSERT INTO evidence (lease, exit_code, handin_sha256) VALUES (%s, 0, %s)",
                           [lease.lease, hashlib.sha256(handin).hexdigest()])  # fmt: skip
    world.settings.handins_dir.mkdir(parents=True, exist_ok=True)
    (world.settings.handins_dir / str(lease.lease)).write_bytes(handin)
    return world


def verify_and_merge(world: World, open_: Open) -> Any:
    """As the steps verify and merge do it, with a gate that finds everything green."""
    with transaction("airflow") as connection:
        run = goals.lock(connection, "g", "r")
        opened = open_(connection, world.settings, run, Wanted(PLAN, "a"))
    if isinstance(opened, NotVerifiable):
        return opened
    made = candidates.candidate(world.settings, opened)
    assert isinstance(made, Candidate)
    world.verify(opened.attempt.task_run)
    with transaction("airflow") as connection:
        tasks.set_state(connection, tasks.lock_attempt(connection, opened.attempt), TaskRunState.MERGE_QUEUE)
        return service.merge_task(connection, world.settings, opened.attempt)


def believe_airflow(connection: Any, settings: Any, run: LockedGoalRun, wanted: Wanted) -> Opened:
    """The broken variant: the lease step is green, so the work must be there."""
    row = tasks.lock(connection, run.id, wanted.key)
    lease = leases.work_lease(connection, settings, row.attempt)
    assert lease is not None
    return Opened(run, Plan.model_validate_json(wanted.document).tasks[0], row.attempt, lease, "")


def merged(world: World) -> int:
    return int(world.row("SELECT count(*) FROM merges")["count"])


def test_what_was_not_handed_in_is_not_merged(marked: World) -> None:
    assert verify_and_merge(marked, candidates.open_or_cancel) == NotVerifiable(
        False,
        "CANCELLED: a person marked or cleared its lease step in Airflow before anything was handed in. Clear the whole group to try again.",
    )
    assert merged(marked) == 0 and marked.tip() == marked.base
    assert marked.row("SELECT state FROM task_runs")["state"] == "CANCELLED"


def test_control_a_verify_that_believes_airflow_is_stopped_by_the_database_only(marked: World) -> None:
    with pytest.raises(IllegalTransition, match="EXECUTING -> MERGE_QUEUE"):
        verify_and_merge(marked, believe_airflow)
    assert merged(marked) == 0


def test_control_and_without_that_wall_too_it_merges(marked: World) -> None:
    with transaction("owner") as connection:
        connection.execute("ALTER TABLE task_runs DISABLE TRIGGER guard")
    verify_and_merge(marked, believe_airflow)
    assert merged(marked) == 1 and marked.tip() != marked.base


def test_an_attempt_that_another_has_taken_over_from_is_left_alone(marked: World) -> None:
    with transaction("airflow") as connection:
        run = goals.lock(connection, "g", "r")
        late = candidates.open_or_cancel(connection, marked.settings, run, Wanted(PLAN, "a", 7))
    assert isinstance(late, NotVerifiable) and late.fine
    assert marked.row("SELECT state FROM task_runs")["state"] == "EXECUTING"


def test_a_twin_of_what_others_merged_meanwhile_is_a_conflict(marked: World) -> None:
    with transaction("airflow") as connection:
        opened = believe_airflow(connection, marked.settings, goals.lock(connection, "g", "r"), Wanted(PLAN, "a"))
    assert isinstance(candidates.candidate(marked.settings, opened), Candidate)  # control: without the other one it merges
    other = make_worker(marked.settings, marked.mirror, marked.base, marked.folder / "other")
    tip = quarantine.accept(marked.mirror, hand_in(_with(other, "Half.py"), marked.folder / "handin-b"), marked.base, f"{RUN}-b", 1)
    trees.set_ref(marked.mirror, f"refs/heads/airlock/{RUN}", tip)
    made = candidates.candidate(marked.settings, opened)
    assert isinstance(made, candidates.Failed) and made.failure is Failure.CONFLICT
    assert "'half.py' differs from 'Half.py' only in case" in made.feedback


def _with(worker: Repo, name: str) -> Repo:
    worker.commit({name: "H = 2\n"}, "the other")
    return worker
