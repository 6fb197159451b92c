"""Import once what every Airflow process needs: what is forked later inherits it (CPU from fork to a step's work: 0.04 s, not 0.23 s)."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

# What runs a step, from the task process up. Imported in the scheduler, whose executor forks workers, which fork the steps.
STEP = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.schema.migrator",
    "airflow.sdk.execution_time.coordinator",
    "airflow.sdk.definitions._internal.setup_teardown",
    "airflow.dag_processing.dagbag",
    "jinja2.ext",
    "psycopg",
    "httpx",
    "include.flow.bundle",
    "include.flow.goal_dag",
    "include.flow.rework_trigger",
)

# What the four components are.
COMPONENTS = (
    "airflow.cli.cli_parser",
    "airflow.jobs.scheduler_job_runner",
    "airflow.jobs.triggerer_job_runner",
    "airflow.jobs.dag_processor_job_runner",
    "airflow.dag_processing.manager",
    "airflow.dag_processing.processor",
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "airflow.api_fastapi.execution_api.app",
    "airflow.api_fastapi.execution_api.routes",
    "airflow.serialization.serialized_objects",
    "uvicorn",
    "uvicorn.protocols.http.auto",
    "uvicorn.loops.auto",
    "include.flow.executor",
    "include.flow.prompt",
    "include.flow.door",
)


def step() -> None:
    """Import what a step needs, its operators too."""
    for name in STEP:
        importlib.import_module(name)
    from include.flow.goal_dag import load_steps

    try:
        load_steps()
    except ImportError as error:  # a step that cannot be imported breaks the goals that use it, not Airflow itself
        print(f"airlock: steps were not preloaded: {error}", file=sys.stderr)


def preload() -> None:
    """Import what the four components need."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in COMPONENTS:
            importlib.import_module(name)
        step()


def share_versions() -> None:
    """Make the routes of the execution API's versions once: 4 CPU-s that api-server, triggerer and dag-processor would each spend later.

    Each app copies the routes into its own router. If this internal way is gone, they are made at the first step, as by default.
    """
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    applications: Any = importlib.import_module("cadwyn.applications")
    generate = applications.generate_versioned_routers
    made: list[Any] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(generate(*args, **kwargs))
        return made[0]

    try:
        applications.generate_versioned_routers = once
        create_task_execution_api_app()._cadwyn_initialize()  # type: ignore[attr-defined]
    except Exception as error:
        applications.generate_versioned_routers = generate
        print(f"airlock: the execution API is not warm: {error}", file=sys.stderr)


def migrate() -> None:
    """Bring Airflow's metadata database to its newest version."""
    from airflow.utils.db import initdb

    initdb()


def component(argv: tuple[str, ...]) -> int:
    """Be one of Airflow's components: run its command line in this process.

    Args:
        argv: for example ``("scheduler", "-s")``.

    Returns:
        The exit code.
    """
    from airflow.__main__ import main

    sys.argv = ["airflow", *argv]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
