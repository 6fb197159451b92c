"""A whole Airlock for tests, as a person runs it: ``up`` in a home of its own, goals by the command line and by REST, ``down`` at the end."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.rows import dict_row

from include.cli.rest import Airflow
from include.settings import ROOT, load
from tests.kit.scale import limit, patience

TESTS = ROOT / "tests"
PLAYBOOKS = (TESTS / "ui" / "playbooks", TESTS / "e2e" / "playbooks")
CAPACITY = 8
"""Workers at once in the stack on bubblewrap."""
CANARY = "sk-canary-of-the-end-to-end-tests"
GIT = ("git", "-c", "user.name=E2E", "-c", "user.email=e2e@airlock.invalid", "-c", "commit.gpgsign=false")


def docker_answers() -> bool:
    """Say whether a Docker engine answers here."""
    return shutil.which("docker") is not None and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0


class Stack:
    """One running Airlock and what a test does with it."""

    def __init__(self, home: Path, engine: str, port: int) -> None:
        self.home, self.engine = home, engine
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "AIRFLOW", "ANTHROPIC"))},
            "AIRLOCK_HOME": str(home),
            "AIRLOCK_ENGINE": engine,
            "AIRLOCK_PLAYBOOKS": str(home / "playbooks"),
            "AIRLOCK_API_PORT": str(port),  # several stacks may run on this machine
            "AIRLOCK_NODE_CAPACITY": str(CAPACITY),
        }

    def run(self, *arguments: str, seconds: float = 240, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "include.cli", *arguments]
        return subprocess.run(
            command, env=self.environment | variables, cwd=ROOT, capture_output=True, text=True, timeout=patience(seconds), check=False
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def submit(self, text: str, repository: Path | str, *more: str) -> str:
        """Submit by the command line; returns the goal run."""
        return str(self.json("goal", "submit", text, "--repo", str(repository), *more)["run"])

    def wait(self, run: str, seconds: int = 240) -> dict[str, Any]:
        """Wait for a goal's end; returns it as ``goal wait --json`` prints it."""
        done = self.run("goal", "wait", run, "--timeout", str(int(patience(seconds))), "--json", seconds=seconds + 30)
        assert done.stdout, done.stderr
        ended: dict[str, Any] = json.loads(done.stdout)
        assert ended["ended_at"], f"{run} did not end: {ended}\n{done.stderr}"
        return ended

    def show(self, run: str) -> dict[str, Any]:
        return self.json("goal", "show", run)  # type: ignore[no-any-return]

    def sql(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with psycopg.connect(load(self.home).dsn("owner"), row_factory=dict_row) as connection:
            return connection.execute(statement, values).fetchall()  # type: ignore[arg-type]

    @property
    def airflow(self) -> Airflow:
        return Airflow(load(self.home))

    def steps(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Airflow's task instances of a run, by id."""
        answer = self.airflow._ask("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances")
        return {step["task_id"]: step for step in answer.json().get("task_instances", [])}

    def steps_when_ended(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """As ``steps``, but empty until the run has ended."""
        row = self.airflow.run(dag, run)
        return self.steps(dag, run) if row and row["state"] in ("success", "failed") else {}

    def step_log(self, dag: str, run: str, step: str, try_number: int = 1) -> str:
        """The log of a step, as text."""
        answer = self.airflow._ask("GET", f"/dags/{dag}/dagRuns/{run}/taskInstances/{step}/logs/{try_number}")
        return json.dumps(answer.json(), ensure_ascii=False)


def repository(source: Path, target: Path) -> Path:
    """A git repository of a folder's files, branch main."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    for arguments in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "First"]):
        subprocess.run([*GIT, *arguments], cwd=target, check=True, capture_output=True)
    return target


# -- playbooks -----------------------------------------------------------------------------------------------------------

SLOW_S = 30
"""How long the first worker of the browser's demo thinks at its end: a page takes some seconds to load, and its work is to be seen live."""
SLOWLY = "Take your time, somebody watches."
"""Stands in the text of a goal that is to be played slowly."""


def write_playbooks(folder: Path) -> None:
    """Write the playbooks of the tests, and the demo's with a slow first worker, with all their delays at this machine's pace."""
    demo = yaml.safe_load((ROOT / "include" / "offline" / "playbooks" / "demo.yaml").read_text())
    demo["goal_matches"] = re.escape(SLOWLY)
    demo["tasks"]["rate"][0][-1]["delay_s"] = SLOW_S
    books = {file.name: yaml.safe_load(file.read_text()) for source in PLAYBOOKS for file in source.glob("*.yaml")}
    folder.mkdir()
    for name, book in {"slow_demo.yaml": demo, **books}.items():
        (folder / name).write_text(yaml.safe_dump(paced(book)))


def paced(part: Any) -> Any:
    """A part of a playbook, with its delays as long for this machine as they are for a free one."""
    if isinstance(part, list):
        return [paced(other) for other in part]
    if isinstance(part, dict):
        return {name: limit(value) if name == "delay_s" else paced(value) for name, value in part.items()}
    return part
