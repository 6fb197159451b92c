"""A real Airflow for the tests of the flow: the product's launcher on the session's PostgreSQL, and a small client for it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from include import settings as settings_module
from include.database import rows
from include.goals import service as goals
from include.goals.models import Goal
from include.plans.models import Plan, Task
from include.settings import Settings
from tests.conftest import ROOT, free_port, wait_until
from tests.flow import probe
from tests.kit import build
from tests.kit.scale import patience


class Airflow:
    """Airflow's REST API, our database, and the pids of the four components."""

    def __init__(self, settings: Settings, dags: Path) -> None:
        self.settings, self.dags = settings, dags
        self.states: dict[str, set[str]] = {}
        self.launcher: subprocess.Popen[bytes]
        self.http = httpx.Client(base_url=settings.api_url, timeout=patience(20), trust_env=False)
        self.database = probe.database()
        self.metadata = psycopg.connect(settings.dsn("owner", "airflow"), autocommit=True)

    def login(self, user: str = "airlock") -> str:
        answer = self.http.post("/auth/token", json={"username": user, "password": self.settings.api_password})
        token = answer.raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"
        return token

    def pid(self, component: str) -> int:
        return int(json.loads((self.settings.run_dir / "airflow.json").read_text()).get(component, 0))

    def kill(self, component: str) -> None:
        os.kill(self.pid(component), signal.SIGKILL)

    def log(self, component: str) -> str:
        return (self.settings.logs_dir / f"airflow-{component}.log").read_text(errors="replace")

    def goal(self, plan: Plan | str, title: str = "A goal", text: str = "Do it.", dag_id: str = "", revision: int = 1) -> str:
        """Store a goal with its plan, or a further revision. Returns its DAG id."""
        known = self._goal(dag_id) if dag_id else None
        if known is None:
            build.ground(self.database, "/nowhere/sample")
            known = build.goal(self.database, dag_id, goal=f"{title}\n{text}")
            self.database.execute(
                "UPDATE goals SET title = %s, text = %s WHERE id = %s", (title, text, known.id)
            )  # also what no request makes
        build.plan(self.database, known.id, plan, revision)
        return known.dag_id

    def _goal(self, dag_id: str) -> Goal | None:
        found = "SELECT id, dag_id, title, request_sha256, created_at FROM goals WHERE dag_id = %(dag_id)s"
        return rows.maybe(self.database, Goal, found, dag_id=dag_id)

    def run(self, dag_id: str, keys: list[str] = [], seconds: float = 40) -> str:  # noqa: B006
        """Store a goal run with its task runs, and create Airflow's run as soon as the DAG is known. Returns the run id."""
        goal = self._goal(dag_id)
        assert goal is not None
        run = goals.new_run_id()
        build.run(self.database, goal, run, run)
        for key in keys:
            build.task(self.database, run, key)
        self.trigger(dag_id, run, seconds)
        return run

    def trigger(self, dag_id: str, run_id: str, seconds: float = 40) -> None:
        end = time.monotonic() + patience(seconds)
        while True:
            answer = self.http.post(f"/api/v2/dags/{dag_id}/dagRuns", json={"dag_run_id": run_id, "logical_date": None})
            if answer.status_code == 200:
                return
            if answer.status_code != 404 or time.monotonic() > end:
                pytest.fail(f"{dag_id}: {answer.status_code} {answer.text}\n{self.errors()}")
            time.sleep(0.1)

    def errors(self) -> dict[str, str]:
        found = self.http.get("/api/v2/importErrors").raise_for_status().json()["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in found}

    def state(self, dag_id: str, run_id: str) -> str:
        return str(self.http.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}").raise_for_status().json()["state"])

    def steps(self, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
        found = self.http.get(f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances").raise_for_status().json()["task_instances"]
        return {step["task_id"]: step for step in found}

    def finish(self, dag_id: str, run_id: str, seconds: float = 90) -> str:
        """Wait for the run's end. All states that its steps are seen in meanwhile are kept in ``states``."""

        def over() -> str:
            rows = self.metadata.execute(
                "SELECT task_id, state FROM task_instance WHERE (dag_id, run_id) = (%s, %s)", (dag_id, run_id)
            ).fetchall()
            self.states.setdefault(run_id, set()).update(str(state) for _, state in rows)
            run = self.metadata.execute("SELECT state FROM dag_run WHERE (dag_id, run_id) = (%s, %s)", (dag_id, run_id)).fetchone()
            return run[0] if run and run[0] in ("success", "failed") else ""

        try:
            return str(wait_until(f"run {run_id} of {dag_id} ends", over, seconds))
        except BaseException:
            print({name: step["state"] for name, step in self.steps(dag_id, run_id).items()}, self.probes(dag_id))
            raise

    def probes(self, dag_id: str, what: str = "ran") -> list[tuple[str, int]]:
        """What ran in this DAG, in order: (step, epoch)."""
        rows = self.database.execute("SELECT step, epoch FROM probe WHERE dag_id = %s AND what = %s ORDER BY id", (dag_id, what))
        return [(row["step"], row["epoch"]) for row in rows]

    def script(self, dag_id: str, step: str, epoch: int, how: str) -> None:
        self.database.execute("INSERT INTO probe_script VALUES (%s, %s, %s, %s)", (dag_id, step, epoch, how))


def plan(*keys: str, **depends: list[str]) -> Plan:
    """A plan with these tasks; ``b=["a"]`` makes b depend on a."""
    return Plan(
        summary="A plan.",
        tasks=tuple(Task(key=key, title=f"Task {key}", prompt="Do.", depends_on=tuple(depends.get(key, ()))) for key in keys),
    )


def start(home: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    log = (home / "launcher.log").open("ab")
    return subprocess.Popen(
        [sys.executable, "-m", "tests.flow.launch"], cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log
    )


@pytest.fixture(scope="package")
def airflow(servers: Settings) -> Iterator[Airflow]:
    dags = servers.home / "probe_dags"
    dags.mkdir(exist_ok=True)
    stored = json.loads((servers.home / "runtime.json").read_text())
    (servers.home / "runtime.json").write_text(json.dumps({**stored, "api_port": free_port()}))
    settings_module.settings.cache_clear()
    settings = settings_module.settings()
    with probe.database() as database:
        database.execute(probe.TABLES)
    began = time.monotonic()
    launcher = start(servers.home, {"PROBE_DAGS": str(dags)})
    client = Airflow(settings, dags)
    client.launcher = launcher
    try:
        ready = wait_for_airflow(client, launcher)
        print(f"\nAirflow answers {time.monotonic() - began:.1f} s after its launcher was started ({ready})")
        yield client
    finally:
        client.launcher.send_signal(signal.SIGTERM)
        try:
            client.launcher.wait(patience(30))
        except subprocess.TimeoutExpired:
            client.launcher.kill()
        client.database.close()
        client.metadata.close()
        if keep := os.environ.get("AIRLOCK_TEST_KEEP_LOGS"):
            shutil.copytree(servers.home, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("postgres", "valkey", "run"))


def wait_for_airflow(client: Airflow, launcher: subprocess.Popen[bytes], seconds: float = 180) -> Any:
    def healthy() -> Any:
        if launcher.poll() is not None:
            pytest.fail(f"the launcher ended: {(client.settings.home / 'launcher.log').read_text()[-3000:]}")
        try:
            health = client.http.get("/api/v2/monitor/health").json()
            states = {name: part["status"] for name, part in health.items()}
            return states if set(states.values()) == {"healthy"} else None
        except (httpx.TransportError, ValueError, KeyError):
            return None

    states = wait_until("Airflow becomes healthy", healthy, seconds)
    client.login()
    return states


@pytest.fixture
def store(airflow: Airflow) -> Callable[..., str]:
    return airflow.goal
