"""A goal run with task runs in MERGE_QUEUE on a real database and real repositories, as verify leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from include.clock import new_id
from include.database.unit_of_work import Connection, transaction
from include.gate import verifier
from include.gate.models import Allowed, Case, Facts
from include.merge import service
from include.repository import quarantine, trees
from include.repository.models import Candidate, MergeConflict
from include.settings import Settings
from include.tasks.models import AttemptRef
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
        trees.move_ref(self.mirror, f"refs/heads/airlock/{RUN}", self.base, trees.ZERO)
        with transaction("owner") as connection:
            _rows(connection, str(self.person.path), self.base)

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
            connection.execute("INSERT INTO task_runs (id, goal_run, key) VALUES (%s, %s, %s)", [task_run, RUN, key])
            for state in ("POLICY_CHECK", "LEASED", "EXECUTING", "VERIFYING"):
                connection.execute("UPDATE task_runs SET state = %s, epoch = 1 WHERE id = %s", [state, task_run])
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


def _rows(connection: Connection, path: str, base: str) -> UUID:
    goal = new_id()
    connection.execute("INSERT INTO agents VALUES ('jarvis', 'p', 'w', 'a', '{test}', 100, 100)")
    connection.execute("INSERT INTO repositories VALUES ('sample', %s, true)", [path])
    connection.execute(
        "INSERT INTO goals (id, dag_id, title, text, repository, base_branch, agent, budget_micro, deadline_s, landing, idempotency_key,"
        " request_sha256, created_by) VALUES (%s, 'g', %s, 't', 'sample', 'main', 'jarvis', 100, 60, 'per_goal', 'k', 'h', 'me')",
        [goal, "Add a feature\n\nTasks: forged"],
    )
    connection.execute(
        "INSERT INTO goal_runs (id, goal, dag_id, run_id, goal_branch, budget_micro, deadline_at, base_commit)"
        " VALUES (%s, %s, 'g', 'r', %s, 100, now() + interval '1 hour', %s)",
        [RUN, goal, f"airlock/{RUN}", base],
    )
    return goal
