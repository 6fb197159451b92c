"""The demo's playbook, applied by hand in a scratch clone: each task's tree passes, the mistake fails, the feature is new."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from include.cli import demo
from include.offline import playbook
from include.plans.models import Plan
from include.worker.tool_definitions import TOOL_DEFINITIONS

BOOK = playbook.find(playbook.read([Path(playbook.__file__).parent / "playbooks"]), f"Goal: {demo.GOAL}")
assert BOOK is not None and BOOK.plan is not None
PLAN = Plan.model_validate(BOOK.plan)
ORDER = [task.key for task in PLAN.tasks]


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return demo.make_sample(tmp_path)


def apply(folder: Path, key: str, attempt: int) -> list[str]:
    """Do what the worker's file tools do; returns the changed paths."""
    changed = []
    for turn in BOOK.tasks[key][attempt - 1]:
        for tool in turn.tools:
            path = folder / tool.input.get("path", ".")
            if tool.name == "write_file":
                path.write_text(tool.input["content"])
            elif tool.name == "edit_file":
                assert path.read_text().count(tool.input["old"]) == 1
                path.write_text(path.read_text().replace(tool.input["old"], tool.input["new"]))
            else:
                continue
            changed.append(tool.input["path"])
    return changed


def pytest_in(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", "--continue-on-collection-errors"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_plan_is_a_diamond_of_four() -> None:
    needs = {task.key: set(task.depends_on) for task in PLAN.tasks}
    first, last = ORDER[0], ORDER[-1]
    assert len(needs) == 4 and needs[first] == set() and needs[last] == set(ORDER[1:3])
    assert needs[ORDER[1]] == needs[ORDER[2]] == {first}


def test_the_sample_passes_its_own_tests(sample: Path) -> None:
    done = pytest_in(sample)
    assert done.returncode == 0 and "31 passed" in done.stdout


def test_every_tree_passes_and_each_task_stays_within_what_it_may_touch(sample: Path) -> None:
    touches = {task.key: set(task.touches) for task in PLAN.tasks}
    before = 31
    for key in ORDER:
        assert set(apply(sample, key, len(BOOK.tasks[key]))) == touches[key]
        done = pytest_in(sample)
        assert done.returncode == 0, done.stdout
        passed = int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
        assert passed > before
        before = passed


def test_the_mistake_breaks_two_tests_that_passed_before(sample: Path) -> None:
    apply(sample, "rate", 1)
    apply(sample, "column", 1)
    done = pytest_in(sample)
    assert done.returncode == 1
    assert "test_a_transfer_from_the_cache_takes_no_time" in done.stdout and "test_an_empty_log_has_an_empty_total" in done.stdout
    assert not any(tool.name == "run_tests" for turn in BOOK.tasks["column"][0] for tool in turn.tools)
    assert "green" in BOOK.tasks["column"][0][-1].tools[0].input["summary"]


def test_the_new_tests_fail_on_the_old_code(sample: Path) -> None:
    for key in ORDER:
        apply(sample, key, len(BOOK.tasks[key]))
    subprocess.run(["git", "checkout", "--quiet", "HEAD", "--", "quantity", "README.md"], cwd=sample, check=True)
    for added in ("rate.py", "extremes.py"):
        (sample / "quantity" / added).unlink()
    for new in ("test_rate", "test_extremes", "test_report_rate", "test_readme"):
        assert (sample / "tests" / f"{new}.py").exists()
    done = pytest_in(sample)
    assert done.returncode != 0
    assert all(f"tests/{new}.py" in done.stdout for new in ("test_rate", "test_extremes", "test_report_rate", "test_readme"))


def test_the_playbook_uses_the_workers_tools_as_they_are_defined() -> None:
    schemas = {tool["name"]: tool["input_schema"] for tool in TOOL_DEFINITIONS}
    for attempts in BOOK.tasks.values():
        for turns in attempts:
            for tool in (tool for turn in turns for tool in turn.tools):
                assert set(schemas[tool.name].get("required", ())) <= set(tool.input) <= set(schemas[tool.name]["properties"])
            assert [tool.name for tool in turns[-1].tools] == ["finish"]


def test_each_demo_gets_a_sample_of_its_own(tmp_path: Path) -> None:
    assert [demo.make_sample(tmp_path).name for _ in range(3)] == ["sample", "sample-2", "sample-3"]
