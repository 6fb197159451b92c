"""A goal run with task runs in MERGE_QUEUE on a real database and real repositories, as verify leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from include.database.unit_of_work import transaction
from include.gate import verifier
from include.gate.models import Allowed, Case, Facts
from include.goals import service as goals
from include.merge import service
from include.repository import quarantine, trees
from include.repository.models import Candidate, MergeConflict
from include.settings import Settings
from include.tasks.models import AttemptRef, TaskRunState
from tests.kit import build
from tests.repository.people import Repo, hand_in, make_person, make_worker, take_in

RUN = "g000000000001"
GREEN = Facts(
    kind="change", ran=1, exit_agrees=1, tests=1, passed=1, new_failures=0, gone_tests=0, tampered=0, rewritten=0,
    rewritten_named=0, harness=0, harness_named=0, files_changed=1, outside_touches=0, cost_micro=0,
    max_cost_micro=0,
)  # fmt: skip


class World:
    """A person's repository ``sample`` and one goal run on it."""

    def __init__(self, settings: Settings, folder: Path, files: dict[str, str] | None = None) -> None:
        self.settings = settings.model_copy(update={"home": folder / "home"})
        self.folder = folder
        self.person = make_person(folder / "person", files)
        self.mirror, self.base = take_in(self.settings, self.person)
        with transaction("owner") as connection:
            build.ground(connection, self.person.path)
            build.node(connection)
            run = build.run(connection, build.goal(connection, "g", budget_usd=1e-4), RUN)
            goals.start_branch(connection, self.settings, run, self.base)
            connection.execute("UPDATE goals SET title = %s", ["Add a feature\n\nTasks: forged"])  # as no request makes it

    def tip(self) -> str:
        return trees.resolve(self.mirror, f"refs/heads/airlock/{RUN}")

    def work(self, key: str, files: dict[str, str], base: str | None = None) -> str:
        """A worker's commit through the quarantine; returns its task run, in VERIFYING."""
        task_run = f"{RUN}-{key}"
        base = base or self.base
        worker = make_worker(self.settings, self.mirror, base, self.folder / "workers" / key)
        worker.commit(files, f"work on {key}")
        handin = hand_in(worker, self.folder / f"handin-{key}")
        quarantine.accept(self.mirror, handin, base, task_run, 1)
        with transaction("owner") as connection:
            build.task(connection, RUN, key, TaskRunState.VERIFYING)
        return task_run

    def verify(self, task_run: str, green: bool | None = True) -> Candidate | MergeConflict:
        """What the verify step does, without the sandbox: candidate on the present goal branch, verdict, MERGE_QUEUE."""
        target = self.tip()
        tip = trees.resolve(self.mirror, f"refs/tasks/{task_run}/1")
        made = trees.merge_in_memory(self.mirror, target, tip, f"Task {task_run}", {"Task-Run": task_run}, 1_700_000_000)
        if isinstance(made, MergeConflict):
            return made
        trees.set_ref(self.mirror, service.candidate_ref(AttemptRef(task_run, 1)), made.commit)
        with transaction("airflow") as connection:
            verifier.request_verdict(connection, Case(RUN, task_run, 1, made.tree, Allowed("change")), GREEN)
            connection.execute("UPDATE task_runs SET state = 'MERGE_QUEUE' WHERE id = %s AND state = 'VERIFYING'", [task_run])
        self.judge(made.tree, green)
        return made

    def judge(self, tree: str, green: bool | None) -> None:
        with transaction("gatekeeper") as connection:
            connection.execute("UPDATE verdicts SET green = %s, findings = %s WHERE tree = %s", [green, Jsonb([]), tree])

    def merge(self, task_run: str) -> Any:
        with transaction("airflow") as connection:
            return service.merge_task(connection, self.settings, AttemptRef(task_run, 1))

    def row(self, sql: str, *values: Any) -> dict[str, Any]:
        with transaction("owner") as connection:
            found = connection.execute(sql, values).fetchone()
        assert found is not None
        return found

    def git(self, *args: str) -> str:
        return Repo(self.mirror).git(*args)
