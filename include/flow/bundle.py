"""One DAG per goal: a versioned DAG bundle whose source is the append-only table of plans.

The version is ``<max seq>.<number of plans>`` of the goals that are not archived, so that nothing is read while nothing changed, and a
plan that commits late, or an archived goal, is seen too. For each goal there is one stub file: the plan as a string literal and one call
of ``include.flow.goal_dag.build``. A pinned version (a step of a run that began under it) writes only its own goal's stub, as of that seq.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion
from airflow.sdk import get_parsing_context

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection, transaction
from include.frozen import Frozen
from include.goals.models import GoalCard

SQL = load(__file__)
LAST = 2**63 - 1
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")  # it becomes a path


class ActivePlan(Frozen):
    """The newest plan of a goal that is not archived."""

    dag_id: str
    seq: int


class PlannedGoal(GoalCard):
    """A goal with the plan that its DAG is made from."""

    revision: int
    document: str


class PlanBundle(BaseDagBundle):
    """The goals' plans as DAG files."""

    supports_versioning = True
    builder = "include.flow.goal_dag"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._current = ""
        self._written: dict[str, int] = {}

    @property
    def path(self) -> Path:
        """Folder of the stubs: one that follows the newest plans, one for each pinned version."""
        return self.versions_dir / self.version if self.version else self.base_dir / "newest"

    def get_current_version(self) -> BundleVersion:
        """The pinned version, else that of the last refresh."""
        return BundleVersion(self.version or self._current)

    def initialize(self) -> None:
        """Write the stubs: of the newest plans, or of a pinned version."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.version:
            self._pin()
        else:
            self.refresh()
        super().initialize()

    def refresh(self) -> None:
        """Bring the stubs to the newest plans."""
        if self.version:
            return
        with transaction("airflow") as connection:
            connection.execute(SQL.one_view)  # else a stub could be parsed under a version that does not hold its plan
            version = str(rows.scalar(connection, SQL.version))
            if version == self._current:
                return
            newest = {row.dag_id: row.seq for row in rows.every(connection, ActivePlan, SQL.active_plans)}
            changed = [dag_id for dag_id, seq in newest.items() if self._written.get(dag_id) != seq]
            for dag_id in changed:
                self._write(connection, dag_id, LAST)
        for stub in self.path.glob("*.py"):
            if stub.stem not in newest:
                stub.unlink(missing_ok=True)
        self._current, self._written = version, newest

    def _pin(self) -> None:
        """Write the stub of the DAG that Airflow's parsing context names; if it names none, write all stubs."""
        seq = int(str(self.version).partition(".")[0])
        dag_id = get_parsing_context().dag_id
        with transaction("airflow") as connection:
            wanted = [dag_id] if dag_id else [row.dag_id for row in rows.every(connection, ActivePlan, SQL.active_plans)]
            for each in wanted:
                self._write(connection, each, seq)

    def _write(self, connection: Connection, dag_id: str, seq: int) -> None:
        planned = rows.maybe(connection, PlannedGoal, SQL.plan_of, dag_id=dag_id, seq=seq)
        if planned is None or not _FILE_NAME.fullmatch(dag_id):
            return
        target = self.path / f"{dag_id}.py"
        text = stub(planned, self.builder)
        if target.exists() and target.read_text() == text:
            return
        draft = target.with_suffix(f".{os.getpid()}")
        draft.write_text(text)
        draft.rename(target)


def stub(planned: PlannedGoal, builder: str) -> str:
    """Write the Python file of a goal's DAG.

    All text of goal and plan stands in one string literal of ASCII characters, JSON within JSON, so nothing in it can end the literal.

    Args:
        planned: the goal and its plan.
        builder: module that holds ``build``.
    """
    goal = planned.model_dump(exclude={"document", "revision"})
    document = json.dumps({"goal": goal, "revision": planned.revision, "plan": planned.document}, ensure_ascii=True)
    return (
        f"# The Airflow DAG of one goal, revision {planned.revision} of its plan. The plan is data; the graph is made from it.\n"
        f"from {builder} import build\n\ndag = build({json.dumps(document, ensure_ascii=True)})\n"
    )
