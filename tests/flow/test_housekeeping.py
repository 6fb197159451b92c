"""The DAG that prunes: it parses, runs by itself every night, and its step calls the same service as the command."""

from __future__ import annotations

import runpy
from typing import Any

from tests.conftest import ROOT


def test_it_runs_every_night_unpaused_and_says_what_it_does() -> None:
    dag: Any = runpy.run_path(str(ROOT / "dags" / "housekeeping.py"))["dag"]
    assert (dag.dag_id, dag.schedule, dag.catchup, dag.is_paused_upon_creation) == ("housekeeping", "17 3 * * *", False, False)
    assert "never pruned" in dag.doc_md and dag.tags == {"airlock"}
    assert [type(task).__name__ for task in dag.task_dict.values()] == ["HousekeepStep"]


def test_its_step_prunes_and_says_so_in_the_audit_log(settings: Any) -> None:
    from include.database.unit_of_work import transaction
    from include.flow.steps.housekeep import HousekeepStep
    from include.governance import service

    gone = HousekeepStep(task_id="housekeep").advance({})
    assert gone["runs"] == 0 and set(gone) >= {"events", "transcripts", "keys", "handins", "bundles"}
    with transaction("cli") as connection:
        assert [(row.actor, row.action) for row in service.newest(connection, 9)] == [("housekeeping", "pruned")]
