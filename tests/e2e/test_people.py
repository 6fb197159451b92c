"""What people do to a live task: cancel it, mark it, clear it, delete its run. The sandbox is gone within 5 s, and everybody tells the same end.

``pytest tests/e2e/test_people.py`` plays every action and every place; ``--times 5`` every action at every place five times.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from include import settings as settings_module
from tests.e2e.conftest import HERE
from tests.e2e.people import matrix
from tests.e2e.people.ends import compare
from tests.e2e.people.trials import GOES_ON, PLACES, Stand, Trial, reached, until
from tests.kit.scale import LONG, count, limit
from tests.kit.stack import CAPACITY, GIT, Stack, repository

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]


@pytest.fixture
def stand(processes_alone: Stack, tmp_path: Path) -> Iterator[Stand]:
    yield from _stand(processes_alone, tmp_path)


@pytest.fixture
def docker_stand(containers_alone: Stack, tmp_path: Path) -> Iterator[Stand]:
    yield from _stand(containers_alone, tmp_path)


def _stand(stack: Stack, folder: Path) -> Iterator[Stand]:
    """This process becomes one of the stack's: the command line's functions find its home."""
    before = os.environ.get("AIRLOCK_HOME")
    os.environ["AIRLOCK_HOME"] = str(stack.home)
    settings_module.settings.cache_clear()
    stand = Stand(stack, _repository(folder / "people"))
    yield stand
    stand.commands.shutdown()
    if before is None:
        del os.environ["AIRLOCK_HOME"]
    else:
        os.environ["AIRLOCK_HOME"] = before
    settings_module.settings.cache_clear()


def _repository(path: Path) -> Path:
    """Branch main is the tiny project; on sleepy its tests take 10 s."""
    repository(HERE / "tiny", path)
    _git(path, "checkout", "-q", "-b", "sleepy")
    (path / "tests" / "test_sleepy.py").write_text(f"import time\n\n\ndef test_sleepy():\n    time.sleep({limit(10):g})\n")
    _git(path, "add", "-A")
    _git(path, "commit", "-q", "-m", "Slow tests")
    _git(path, "checkout", "-q", "main")
    return path


def _git(path: Path, *arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], cwd=path, check=True, capture_output=True, text=True).stdout.strip()


def play(stand: Stand, trials: list[Trial], capacity: int, target: str = "") -> None:
    """Give each trial a base branch of its own, so that landings do not wait for each other; play; print the table, and write it."""
    for number, trial in enumerate(trials):
        trial.branch = f"t{number}"
        trial.base = _git(stand.path, "rev-parse", "sleepy" if trial.place == "verify" else "main")
        _git(stand.path, "branch", trial.branch, trial.base)
    for number in range(capacity):
        _git(stand.path, "branch", f"filler-{number}", "main")

    def told(done: list[Trial]) -> None:
        if target:
            problems = {trial.name: trial.problems for trial in done if trial.problems}
            words = {
                "engine": stand.stack.environment["AIRLOCK_ENGINE"],
                "trials": len(done),
                "cells": matrix.rows(done),
                "problems": problems,
            }
            Path(target).write_text(json.dumps(words, indent=1))

    matrix.play(stand, trials, capacity, told)
    print("\n" + matrix.text(matrix.rows(trials)))
    bad = [f"{trial.name}: {problem}" for trial in trials for problem in trial.problems]
    assert not bad, "\n".join(bad)


def test_a_goal_that_no_run_carries_comes_to_its_end(stand: Stand) -> None:
    """Airflow deletes a queued run without its teardowns, and a submission may die for good: the reaper ends both, and nothing else."""
    deleted, lost, young, lives = (Trial("delete the run", "lease", number, branch=f"carried-{number}") for number in range(4))
    for trial in (deleted, lost, young, lives):
        _git(stand.path, "branch", trial.branch, "main")
    for trial in (deleted, lives):
        stand.launch(trial, key="filler")
    for trial in (lost, young):
        stand.store(trial)
    for trial in (deleted, lives):
        until("it works", lambda trial=trial: reached(stand, trial), 90)  # type: ignore[misc]
    run = f"/dags/{deleted.dag_id}/dagRuns/{deleted.run_id}"

    def delete() -> bool:
        stand.stack.ask("PATCH", run, {"state": "queued"})
        return stand.stack.ask("DELETE", run).status_code == 204

    until("Airflow deletes the live run", delete, 30, 0.1)
    until("its sandbox is gone", lambda: all(lease["ended_at"] for lease in stand.leases(deleted)), 75)
    old = [trial.goal_run for trial in (deleted, lost, lives)]
    stand.sql("UPDATE goal_runs SET created_at = created_at - interval '10 minutes' WHERE id = ANY (%s) RETURNING id", old)
    assert state(stand, deleted) == "RUNNING" and state(stand, lost) == "SUBMITTED"
    assert stand.airflow.trigger("reaper", f"now-{deleted.goal_run}", {}).status_code == 200
    until("the reaper ends them", lambda: state(stand, deleted) == state(stand, lost) == "CANCELLED", 60, 0.5)
    assert (state(stand, young), state(stand, lives)) == ("SUBMITTED", "RUNNING")
    assert stand.stack.show(deleted.goal_run)["tasks"][0]["state"] == "CANCELLED"
    cancelled = stand.stack.run("goal", "cancel", lives.goal_run)
    assert cancelled.returncode == 0, cancelled.stdout + cancelled.stderr


def state(stand: Stand, trial: Trial) -> str:
    return str(stand.sql("SELECT state FROM goal_runs WHERE id = %s", trial.goal_run)[0]["state"])


def chosen(trials: list[Trial], request: pytest.FixtureRequest) -> list[Trial]:
    """Only the cells that the command names."""
    cells = request.config.getoption("--cells")
    return [trial for trial in trials if re.search(cells, f"{trial.action} at {trial.place}")]


@pytest.mark.sized
@pytest.mark.parametrize("places", [(place,) for place in PLACES] if LONG else [PLACES], ids="-".join)
def test_whatever_people_do(stand: Stand, request: pytest.FixtureRequest, places: tuple[str, ...]) -> None:
    """Every day each action once, and each place; for releases every action at every place five times, place by place."""
    times = request.config.getoption("--times") or count(0, 5)
    all_trials = matrix.all_cells(times) if times else matrix.diagonal()
    trials = chosen([trial for trial in all_trials if trial.place in places], request)
    play(stand, trials, CAPACITY, request.config.getoption("--people-json"))
    for trial in trials:
        if trial.expected == GOES_ON:
            control(stand, trial)
            break


def control(stand: Stand, trial: Trial) -> None:
    """The comparison can fail: a goal that went on is no cancelled one, and a merge by a red verdict is seen."""
    other = replace(trial, action="mark step failed", problems=[])
    compare(stand, other)
    assert any("ended COMPLETED" in problem for problem in other.problems) and any("sandbox" in problem for problem in other.problems)
    stand.sql("UPDATE verdicts SET green = false WHERE goal_run = %s RETURNING id", trial.goal_run)
    red = replace(trial, problems=[])
    compare(stand, red)
    stand.sql("UPDATE verdicts SET green = true WHERE goal_run = %s RETURNING id", trial.goal_run)
    assert any("without its green verdict" in problem for problem in red.problems)


@pytest.mark.docker
def test_the_same_in_containers(docker_stand: Stand, request: pytest.FixtureRequest) -> None:
    play(docker_stand, chosen(matrix.diagonal(), request), CAPACITY)
