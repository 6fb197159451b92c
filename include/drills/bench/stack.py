"""The supervisor of a benchmark's Airlock, whose Airflow also has DAGs of the benchmark: ``python -m include.drills.bench.stack``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from include.local import airflow, airflow_settings, supervisor
from include.local.processes import Supervised, default_processes
from include.settings import Settings, settings

_AIRFLOW = "airflow"


def plain_dags(home: Path) -> Path:
    """Name the folder of the benchmark's DAG files in its home."""
    return home / "plain-dags"


def processes(mine: Settings) -> list[Supervised]:
    """List what an installation runs, with this module in the place of Airflow's launcher."""
    command = (sys.executable, "-m", "include.drills.bench.stack", _AIRFLOW)
    return [replace(process, command=command) if process.name == "airflow" else process for process in default_processes(mine)]


def main(arguments: list[str]) -> int:
    """Be the supervisor; with the argument ``airflow``, be Airflow's launcher with one more folder of DAGs."""
    if arguments != [_AIRFLOW]:
        return supervisor.main(processes)
    folder = plain_dags(settings().home)
    folder.mkdir(exist_ok=True)
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    more = {"name": "plain", "classpath": local, "kwargs": {"path": str(folder), "refresh_interval": 1}}
    listed = [*airflow_settings.bundles("include.flow.bundle.PlanBundle"), more]
    airflow.main({"AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(listed)})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
