"""The goal branch moves once per task, only to the tree that was judged green, whatever is killed and whoever else merges."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from include.database.unit_of_work import transaction
from include.errors import IllegalTransition, Refused, StaleEpoch
from include.merge import service
from include.repository import trees
from include.repository.models import Candidate, MergeConflict
from include.settings import ROOT
from include.tasks.models import AttemptRef
from tests.merge.world import RUN, World


def test_green_candidate_is_merged_once(world: World) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    made = world.verify(task_run)
    assert isinstance(made, Candidate)
    assert world.merge(task_run) == ("merged", made.commit)
    assert world.tip() == made.commit
    assert world.merge(task_run) == ("already", made.commit)
    assert world.row("SELECT state, merged_commit FROM task_runs WHERE id = %s", task_run) == {
        "state": "COMPLETED",
        "merged_commit": made.commit,
    }
    assert world.row("SELECT tree, target FROM merges") == {"tree": made.tree, "target": f"refs/heads/airlock/{RUN}"}
    assert world.git("log", "-1", "--format=%an <%ae> %P", made.commit) == f"Airlock <airlock@localhost> {world.base} {made.parents[1]}"


@pytest.mark.parametrize("green", [False, None])
def test_no_green_verdict_no_merge(world: World, green: bool | None) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    world.verify(task_run, green)
    with pytest.raises(Refused, match="no green verdict"):
        world.merge(task_run)
    assert world.tip() == world.base
    assert world.row("SELECT count(*) AS n FROM merges")["n"] == 0


def test_green_for_another_tree_does_not_count(world: World) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    made = world.verify(task_run)
    assert isinstance(made, Candidate)
    swapped = trees.resolve(world.mirror, made.parents[1])  # the worker's own commit in the candidate's place, with one more change
    other = world.work("b", {"c.py": "C = 3\n"})
    trees.set_ref(world.mirror, service.candidate_ref(AttemptRef(task_run, 1)), trees.resolve(world.mirror, f"refs/tasks/{other}/1"))
    with pytest.raises(Refused, match="no green verdict"):
        world.merge(task_run)
    assert swapped and world.tip() == world.base


def test_stale_epoch_and_wrong_state_merge_nothing(world: World) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    world.verify(task_run)
    with transaction("owner") as connection:
        connection.execute("UPDATE task_runs SET state = 'VERIFYING' WHERE id = %s", [task_run])
    with pytest.raises(IllegalTransition):
        world.merge(task_run)
    with transaction("owner") as connection:
        connection.execute("UPDATE task_runs SET epoch = 2 WHERE id = %s", [task_run])
    with pytest.raises(StaleEpoch):
        world.merge(task_run)
    assert world.tip() == world.base


def test_target_moved_asks_for_a_verification_on_the_new_one(world: World) -> None:
    first, second = world.work("a", {"b.py": "B = 2\n"}), world.work("b", {"c.py": "C = 3\n"})
    world.verify(first), world.verify(second)
    world.merge(first)
    assert world.merge(second) == ("moved", None)
    assert world.row("SELECT state FROM task_runs WHERE id = %s", second)["state"] == "MERGE_QUEUE"
    world.verify(second)
    assert world.merge(second).outcome == "merged"
    assert set(trees.files(world.mirror, world.tip())) >= {"b.py", "c.py"}


def test_conflict_names_the_paths(world: World) -> None:
    first, second = world.work("a", {"a.py": "A = 2\n"}), world.work("b", {"a.py": "A = 3\n"})
    world.verify(first)
    world.merge(first)
    found = world.verify(second)
    assert isinstance(found, MergeConflict)
    assert found.paths == ("a.py",) and "content" in found.messages[0]


def test_nothing_committed_is_recognised_as_merged(world: World) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    trees.set_ref(world.mirror, f"refs/tasks/{task_run}/1", world.base)
    made = world.verify(task_run)
    assert isinstance(made, Candidate) and made.commit == world.base
    assert world.merge(task_run).outcome == "already"
    assert world.tip() == world.base


@pytest.mark.slow
def test_eight_branches_merged_at_once(world: World) -> None:
    task_runs = [world.work(f"t{number}", {f"f{number}.py": f"F = {number}\n"}) for number in range(8)]

    def bring(task_run: str) -> int:
        for tries in range(1, 40):
            world.verify(task_run)
            if world.merge(task_run).outcome != "moved":
                return tries
        raise AssertionError(task_run)

    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        tries = list(pool.map(bring, task_runs))
    print(f"8 branches in {time.monotonic() - start:.1f} s, {sum(tries)} verifications")
    history = world.git("log", "--first-parent", "--format=%T", f"{world.base}..{world.tip()}").split()
    judged = {
        row["tree"] for row in [world.row("SELECT array_agg(tree) AS trees FROM merges")] for row in [{"tree": t} for t in row["trees"]]
    }
    assert len(history) == 8 and set(history) == judged  # every tree that the branch had was judged
    assert all(f"f{number}.py" in trees.files(world.mirror, world.tip()) for number in range(8))
    world.git("fsck", "--strict")


def test_control_without_compare_and_swap_a_branch_is_lost(world: World) -> None:
    first, second = world.work("a", {"b.py": "B = 2\n"}), world.work("b", {"c.py": "C = 3\n"})
    candidates = [world.verify(first), world.verify(second)]
    for made in candidates:
        assert isinstance(made, Candidate)
        trees.set_ref(world.mirror, f"refs/heads/airlock/{RUN}", made.commit)  # last one wins
    assert "b.py" not in trees.files(world.mirror, world.tip())


_DIES = """
import os, signal, sys
from pathlib import Path
from include.database.unit_of_work import transaction
from include.merge import service
from include.repository import trees
from include.settings import settings
from include.tasks.models import AttemptRef
moves = trees.move_ref
def die(*args):
    if sys.argv[3] == "after": moves(*args)
    os.kill(os.getpid(), signal.SIGKILL)
trees.move_ref = die
with transaction("airflow") as connection:
    service.merge_task(connection, settings().model_copy(update={"home": Path(sys.argv[1])}), AttemptRef(sys.argv[2], 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_the_ref_and_the_commit(world: World, when: str) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    made = world.verify(task_run)
    assert isinstance(made, Candidate)
    died = subprocess.run([sys.executable, "-c", _DIES, str(world.settings.home), task_run, when], cwd=ROOT, env=os.environ, check=False)
    assert died.returncode == -signal.SIGKILL
    assert world.row("SELECT count(*) AS n FROM merges")["n"] == 0  # the transaction went with the process
    assert (world.tip() == made.commit) == (when == "after")
    with transaction("airflow") as connection:  # a whole group that is cleared now recognises the merge, and merges nothing itself
        assert service.recognise(connection, world.settings, AttemptRef(task_run, 1)) is (when == "after")
    assert world.merge(task_run) == ("already" if when == "after" else "merged", made.commit)
    assert world.row("SELECT count(*) AS n FROM merges")["n"] == 1
    assert world.git("rev-list", "--first-parent", "--count", f"{world.base}..{world.tip()}") == "1"


@pytest.mark.slow
def test_locks_of_a_killed_git_do_not_block(world: World) -> None:
    task_run = world.work("a", {"b.py": "B = 2\n"})
    world.verify(task_run)
    lock = world.mirror / f"refs/heads/airlock/{RUN}.lock"
    lock.touch()
    os.utime(lock, (time.time() - 60, time.time() - 60))
    assert world.merge(task_run).outcome == "merged"
    assert not lock.exists()


def test_control_a_live_lock_is_respected(world: World, tmp_path: Path) -> None:
    lock = world.mirror / f"refs/heads/airlock/{RUN}.lock"
    lock.touch()
    assert trees.clear_stale_locks(world.mirror, f"refs/heads/airlock/{RUN}") is False
    assert lock.exists() and tmp_path.exists()
