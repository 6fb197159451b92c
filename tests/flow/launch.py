"""The product's launcher with the test's bundle, and one DAG folder of the tests' own."""

import json
import os

from include.local.airflow import main
from include.local.airflow_settings import bundles

if __name__ == "__main__":
    local, plans = bundles("tests.flow.probe.ProbeBundle")
    local["kwargs"] = {"path": os.environ["PROBE_DAGS"], "refresh_interval": 1}
    overrides = {
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([local, plans]),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
    }
    if executor := os.environ.get("PROBE_EXECUTOR"):
        overrides["AIRFLOW__CORE__EXECUTOR"] = executor
    main(overrides)
