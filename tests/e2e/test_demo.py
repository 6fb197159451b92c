"""The demo, as the README tells a new user to run it, on both rungs: a diamond, one mistake that the gate catches, one merge on main."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from include.drills.bench import moments, phases
from include.drills.bench.phases import Moment
from include.settings import load
from tests.conftest import wait_until
from tests.kit.stack import CANARY, GIT, Stack

pytestmark = pytest.mark.slow


def demo(stack: Stack, rung: str) -> str:
    """Run the demo on a rung; its goal run."""
    done = stack.run("demo", "--offline", seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Goal COMPLETED" in done.stdout and "offline playbook" in done.stdout
    sample = re.findall(r"^The sample repository is (.*)\.$", done.stderr, re.MULTILINE)[0]
    run = re.findall(r"^Goal  \S+/runs/(\S+)$", done.stdout, re.MULTILINE)[0]
    goal = stack.sql("SELECT id FROM goal_runs WHERE run_id = %s", unquote(run))[0]["id"]
    red = stack.sql("SELECT count(*) AS n FROM verdicts WHERE NOT green AND goal_run = %s", goal)[0]["n"]
    green = stack.sql("SELECT count(*) AS n FROM verdicts WHERE green AND goal_run = %s", goal)[0]["n"]
    assert red == 1 and green >= 4  # a task whose target moves is verified again
    rungs = stack.sql("SELECT DISTINCT rung FROM attempts WHERE task_run LIKE %s", f"{goal}-%")
    assert {row["rung"] for row in rungs} == {rung}
    subjects = subprocess.run(
        [*GIT, "-C", sample, "log", "--first-parent", "--format=%s", "main"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(subjects) == 2 and subjects[0].startswith("Show how fast")
    print(done.stdout.splitlines()[-4])
    return str(goal)


def test_demo_in_containers(containers: Stack) -> None:
    demo(containers, "container")


def test_demo_in_bubblewrap(processes: Stack) -> None:
    tells_each_second(processes, demo(processes, "bubblewrap"))


def tells_each_second(stack: Stack, goal: str) -> None:
    """What ``./airlock bench goal`` reads is there: of a goal that ran, each phase of each attempt."""

    def whole_run() -> list[Moment]:
        """Its moments once Airflow has ended the run too: a goal is told as ended within its last step."""
        found = moments.of_goal(load(stack.home), goal)
        return found if any(moment.kind == "outcome.ends" for moment in found) else []

    found = phases.columns(
        wait_until("its last step ended", whole_run, 30),
        {"rate": (), "column": ("rate",), "extremes": ("rate",), "docs": ("column",)},
    )
    assert [column.name for column in found] == ["goal", "rate", "column", "column_2", "extremes", "docs"]
    whole = set(phases.TASK.values()) - {"door: steps cleared", "worker: hand-in"}
    assert whole <= set(found[1].phases) and set(phases.GOAL.values()) <= set(found[0].phases)
    assert all(0 < column.own < column.seconds for column in found[1:])


def test_the_model_key_is_in_no_environment(processes: Stack) -> None:
    """The bubblewrap stack was started with a key in the environment, see its fixture."""
    mine = {path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if _mentions(path, str(processes.home).encode())}
    assert len(mine) >= 10  # control: the processes of this Airlock are seen
    assert not [pid for pid in mine if _mentions(Path(f"/proc/{pid}/environ"), CANARY.encode())]
    assert (processes.home / "keys" / "jarvis.key").read_text().strip() == CANARY
    assert (processes.home / "keys" / "jarvis.key").stat().st_mode & 0o777 == 0o600


def test_what_is_at_work_goes_on_after_down_and_up(processes_alone: Stack, tiny: Path) -> None:
    processes = processes_alone
    run = processes.submit("E2E again after a shutdown", tiny)
    working = "SELECT 1 FROM attempts a JOIN task_runs t ON t.id = a.task_run WHERE t.goal_run = %s AND a.state = 'WORKING'"
    wait_until("a worker works", lambda: processes.sql(working, run), 90)
    assert processes.run("down").returncode == 0
    assert processes.run("up", "--offline").returncode == 0
    ended = processes.wait(run)
    assert ended["state"] == "COMPLETED", ended["reason"]
    attempts = processes.sql("SELECT epoch, failure, counted FROM attempts WHERE task_run LIKE %s ORDER BY epoch", f"{run}-%")
    assert [tuple(attempt.values()) for attempt in attempts] == [(1, "lost", False), (2, None, None)]


def _mentions(path: Path, word: bytes) -> bool:
    try:
        return word in path.read_bytes()
    except OSError:
        return False
