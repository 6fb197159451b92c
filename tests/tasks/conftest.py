"""One task run of a goal on real PostgreSQL and a real mirror, and what its admit step sees of it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from include.catalog import store as catalog
from include.database.unit_of_work import transaction
from include.goals import service as goals
from include.repository import trees
from include.settings import Settings
from include.tasks import reworks
from include.tasks.models import AttemptRef, Failure, Rework
from include.tasks.reworks import Asker, GaveUp
from tests.kit import build
from tests.repository.people import Repo, hand_in, make_person, make_worker, take_in

if TYPE_CHECKING:
    from include.flow.waiting import NotYet

PLAN = {"summary": "s", "tasks": [{"key": "parser", "title": "Parser", "prompt": "Write it.", "touches": ["**"]}]}


class World:
    """A goal run with one task. Workers are played: what one leaves is written as warden and broker write it."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder, self.clears = settings, folder, 0
        name = f"repo-{secrets.token_hex(4)}"
        self.person = make_person(folder / "person")
        self.mirror, self.base = take_in(settings, self.person, name=name)
        with transaction("owner") as connection:
            build.ground(connection, folder / "person", name)
            build.node(connection)
            self.run = goals.new_run_id()
            goal = build.goal(connection, self.run, goal="x", repository=name, budget_usd=9)
            build.plan(connection, goal.id, PLAN)
            build.run(connection, goal, self.run)
        self.task_run = f"{self.run}-parser"

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        with transaction("owner") as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    @property
    def row(self) -> dict[str, Any]:
        return self.rows("SELECT * FROM task_runs WHERE id = %s", self.task_run)[0]

    def lease(self, epoch: int) -> dict[str, Any]:
        return self.rows(
            "SELECT l.*, a.resumed_from FROM leases l JOIN attempts a USING (task_run, epoch) WHERE task_run = %s AND epoch = %s",
            self.task_run, epoch,
        )[0]  # fmt: skip

    def ask(self, ti: str = "", cleared: bool = False) -> NotYet | None:
        """One call of the admit step's ``advance``, by a task instance that was cleared or not; None: admitted."""
        from include.flow.steps.admit import AdmitStep  # Airflow: seconds of CPU, also where no test of these runs

        step = AdmitStep(task_id="admit", task_key="parser")
        self.clears += cleared
        max_tries = (step.retries or 0) + self.clears  # as Airflow raises it, once for all later tries
        context = {"ti": SimpleNamespace(id=ti or secrets.token_hex(4), dag_id=self.run, max_tries=max_tries), "run_id": "r"}
        return step.advance(context)  # type: ignore[no-any-return]

    def ready(self, what: NotYet) -> bool:
        """What the step and the triggerer ask while they wait."""
        from include.flow import waiting

        with transaction("airflow") as connection:
            return waiting._ask(connection, what.query, what.subject)

    def admit(self) -> dict[str, Any]:
        """Admitted at once, whatever the delay; returns the lease."""
        self.rows("UPDATE task_runs SET due_at = now() WHERE id = %s", self.task_run)
        assert self.ask() is None
        return self.lease(self.row["epoch"])

    def works(self, turns: int, commit: dict[str, str] | None = None) -> str | None:
        """The newest attempt's worker has had turns of its model (of all its transcript), and may have committed; returns its commit."""
        epoch = self.row["epoch"]
        lease = self.lease(epoch)
        self.rows("UPDATE attempts SET state = 'WORKING' WHERE task_run = %s AND epoch = %s", self.task_run, epoch)
        self.rows("UPDATE task_runs SET state = 'EXECUTING' WHERE id = %s", self.task_run)
        for position in range(1, 2 * turns + 1):
            role = "user" if position % 2 else "assistant"
            self.rows("INSERT INTO transcripts VALUES (%s, %s, %s, %s, '[]') ON CONFLICT DO NOTHING", self.task_run, epoch, position, role)
        if lease["resumed_from"]:  # as the broker notes it with the assignment
            before = self.rows(
                "SELECT count(*) AS n FROM transcripts WHERE task_run = %s AND epoch = %s AND role = 'assistant'",
                self.task_run, lease["resumed_from"],
            )[0]["n"]  # fmt: skip
            self.rows("UPDATE attempts SET first_turn = %s WHERE task_run = %s AND epoch = %s", before + 1, self.task_run, epoch)
        if commit is None:
            return None
        worker = make_worker(self.settings, self.mirror, lease["input_commit"], self.folder / f"worker-{epoch}")
        tip = worker.commit(commit)
        self.settings.handins_dir.mkdir(parents=True, exist_ok=True)
        hand_in(worker, self.settings.handins_dir / str(lease["id"]))
        self.worker = worker
        return tip

    def ends(self, seconds_ago: float = 0) -> None:
        """The warden ends the newest attempt's sandbox: evidence with what it handed in, then the end."""
        lease = self.lease(self.row["epoch"])
        there = (self.settings.handins_dir / str(lease["id"])).exists()
        self.rows(
            "INSERT INTO evidence (lease, exit_code, handin_sha256, handin_bytes) VALUES (%s, 137, %s, 1)",
            lease["id"],
            "0" * 64 if there else None,
        )
        self.rows("UPDATE leases SET ended_at = now() - make_interval(secs => %s) WHERE id = %s", seconds_ago, lease["id"])

    def fails(self, failure: Failure = Failure.LOST, feedback: str = "") -> Rework | GaveUp:
        """A step decides that the newest attempt failed."""
        with transaction("airflow") as connection:
            ti = secrets.token_hex(4)
            asker = Asker(AttemptRef(self.task_run, self.row["epoch"]), ti)
            return reworks.fail_attempt(connection, self.settings, asker, failure, f"it was {failure}", feedback)

    def loses(self, turns: int, commit: dict[str, str] | None = None, failure: Failure = Failure.LOST) -> str | None:
        """Works, is ended and given up; returns what it had committed."""
        tip = self.works(turns, commit)
        self.ends()
        assert isinstance(self.fails(failure), Rework)
        return tip

    def commit_on_goal_branch(self, files: dict[str, str]) -> str:
        """Something else was merged meanwhile."""
        worker: Repo = make_worker(self.settings, self.mirror, self.goal_tip(), self.folder / f"other-{secrets.token_hex(3)}")
        tip = worker.commit(files)
        worker.git("push", "--quiet", str(self.mirror), f"task:refs/heads/airlock/{self.run}")
        return tip

    def goal_tip(self) -> str:
        return trees.resolve(self.mirror, f"refs/heads/airlock/{self.run}")


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(settings, tmp_path)


@pytest.fixture
def forgetful(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every worker definition of this installation says ``session_persistence: false``."""
    folder = tmp_path / "definitions"
    folder.mkdir()
    for file in catalog.FOLDER.glob("*.yaml"):
        definition = yaml.safe_load(file.read_text())
        definition["runtime"]["session_persistence"] = False
        (folder / file.name).write_text(yaml.safe_dump(definition))
    monkeypatch.setattr(catalog, "FOLDER", folder)
    catalog.load.cache_clear()
    yield
    catalog.load.cache_clear()
