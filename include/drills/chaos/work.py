"""The work that a run of chaos kills: a small repository, and goals of three to five tasks with a playbook each.

Each task adds a module and its test, commits, runs the tests and finishes, with small pauses, so that kills hit live work. No two
tasks write the same file; every fourth goal lands task by task.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import yaml

IDENTITY = ("-c", "user.name=Airlock chaos", "-c", "user.email=chaos@airlock.invalid", "-c", "commit.gpgsign=false")
_DEPENDS: dict[int, list[int]] = {1: [], 2: [], 3: [1], 4: [2, 3], 5: [1]}


class PlayedGoal(NamedTuple):
    """One goal to submit."""

    number: int
    key: str
    text: str
    tasks: int
    landing: str


def goals(count: int, seed: int) -> list[PlayedGoal]:
    """Make the goals of a run; the same seed makes the same goals."""
    chance = random.Random(f"goals {seed}")
    made = []
    for number in range(1, count + 1):
        tasks, landing = chance.randint(3, 5), "per_task" if number % 4 == 0 else "per_goal"
        made.append(PlayedGoal(number, f"chaos-{seed}-{number}", f"Chaos goal {number}: add {tasks} parts.", tasks, landing))
    return made


def make_repository(folder: Path) -> Path:
    """Make a git repository with one module and one test, branch main."""
    files = {
        "conftest.py": '"""The folder of this file is where tests import from."""\n',
        "parts/__init__.py": '"""Parts, one module each."""\n',
        "tests/test_parts.py": 'import parts\n\n\ndef test_parts():\n    assert parts.__doc__ == "Parts, one module each."\n',
        ".gitignore": "__pycache__/\n.pytest_cache/\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "Parts")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git in the sample repository, which only chaos and Airlock write."""
    done = subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def write_playbooks(folder: Path, all_goals: list[PlayedGoal], seed: int) -> None:
    """Write one playbook a goal, for the offline model."""
    chance = random.Random(f"playbooks {seed}")
    folder.mkdir(parents=True, exist_ok=True)
    for goal in all_goals:
        text = yaml.safe_dump(_playbook(goal, chance), sort_keys=False)
        (folder / f"{goal.number:04}.yaml").write_text(text)


def _playbook(goal: PlayedGoal, chance: random.Random) -> dict[str, Any]:
    numbers = range(1, goal.tasks + 1)
    return {
        "goal_matches": rf"Chaos goal {goal.number}:",
        "plan": {"summary": f"{goal.tasks} parts.", "tasks": [_task(goal, number) for number in numbers]},
        "tasks": {f"t{number}": [_turns(goal, number, chance)] for number in numbers},
    }


def _task(goal: PlayedGoal, number: int) -> dict[str, Any]:
    return {
        "key": f"t{number}",
        "title": f"Part {number} of goal {goal.number}",
        "prompt": f"Add part {number} with a test.",
        "depends_on": [f"t{before}" for before in _DEPENDS[number]],
        "touches": [f"parts/{_name(goal, number)}.py", f"tests/test_{_name(goal, number)}.py"],
        "lease": {"max_minutes": 20, "max_tokens": 400_000, "max_usd": 5.0},
    }


def _name(goal: PlayedGoal, number: int) -> str:
    return f"g{goal.number}_t{number}"


def _turns(goal: PlayedGoal, number: int, chance: random.Random) -> list[dict[str, Any]]:
    name, value = _name(goal, number), goal.number * 10 + number
    module = f'"""Part {number} of goal {goal.number}."""\n\nVALUE = {value}\n'
    test = f"from parts import {name}\n\n\ndef test_value():\n    assert {name}.VALUE == {value}\n"
    calls = [
        [_tool("write_file", path=f"parts/{name}.py", content=module), _tool("write_file", path=f"tests/test_{name}.py", content=test)],
        [_tool("git_commit", message=f"Part {name}")],
        [_tool("run_tests")],
        [_tool("finish", summary=f"Part {name} is there.")],
    ]
    return [{"text": f"Turn {turn}.", "tools": tools, "delay_s": _pause(chance)} for turn, tools in enumerate(calls, 1)]


def _pause(chance: random.Random) -> float:
    return round(chance.uniform(0.3, 2.0), 2)


def _tool(name: str, **values: str) -> dict[str, Any]:
    return {"name": name, "input": values}
