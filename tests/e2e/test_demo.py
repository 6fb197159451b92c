"""The demo, as the README tells a new user to run it, on both rungs: a diamond, one mistake that the gate catches, one merge on main."""

from __future__ import annotations

import subprocess

import pytest

from tests.e2e.conftest import GIT, Stack

pytestmark = pytest.mark.slow


def demo(stack: Stack, rung: str) -> None:
    done = stack.run("demo", seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Goal COMPLETED" in done.stdout and "offline playbook" in done.stdout
    red = stack.sql("SELECT count(*) AS n FROM verdicts WHERE NOT green")[0]["n"]
    green = stack.sql("SELECT count(*) AS n FROM verdicts WHERE green")[0]["n"]
    assert (red, green) == (1, 4)
    assert {row["rung"] for row in stack.sql("SELECT DISTINCT rung FROM attempts")} == {rung}
    subjects = subprocess.run(
        [*GIT, "-C", str(stack.home / "sample"), "log", "--first-parent", "--format=%s", "main"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert len(subjects) == 2 and subjects[0].startswith("Show how fast")
    print(done.stdout.splitlines()[-4])


def test_demo_in_containers(containers: Stack) -> None:
    if containers.sql("SELECT 1 FROM goals LIMIT 1"):
        pytest.skip("other tests have used this Airlock already: run this file first")
    demo(containers, "container")


def test_demo_in_bubblewrap(processes: Stack) -> None:
    demo(processes, "bubblewrap")
