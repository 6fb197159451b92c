"""Import once what every Airflow process needs: what is forked later inherits it (CPU from fork to a step's work: 0.04 s, not 0.23 s)."""

from __future__ import annotations

import copy
import importlib
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

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

# What each component is, in the order in which they are forked: each has what stands before it too.
SCHEDULER = (
    "airflow.cli.cli_parser",
    "airflow.jobs.scheduler_job_runner",
    "airflow.serialization.serialized_objects",
    "airflow.utils.db",
    "include.flow.executor",
)
WITH_EXECUTION_API = (  # dag-processor and triggerer
    "airflow.jobs.dag_processor_job_runner",
    "airflow.dag_processing.manager",
    "airflow.dag_processing.processor",
    "airflow.jobs.triggerer_job_runner",
    "include.flow.prompt",
    "airflow.api_fastapi.execution_api.app",
    "airflow.api_fastapi.execution_api.routes",
)
API_SERVER = (
    "airflow.api_fastapi.app",
    "airflow.api_fastapi.core_api.app",
    "airflow.api_fastapi.core_api.routes.public",
    "airflow.api_fastapi.core_api.routes.ui",
    "uvicorn",
    "uvicorn.protocols.http.auto",
    "uvicorn.loops.auto",
    "include.flow.door",
)


def step() -> None:
    """Import what a step needs, its operators too."""
    _load(STEP)
    from include.flow.goal_dag import load_steps

    try:
        load_steps()
    except ImportError as error:  # a step that cannot be imported breaks the goals that use it, not Airflow itself
        print(f"airlock: steps were not preloaded: {error}", file=sys.stderr)


def stages() -> Iterator[tuple[str, ...]]:
    """Import what the four components need, a part at a time; yields the names of those that have all they need now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _load(SCHEDULER)
        step()
        yield ("scheduler",)
        _load(WITH_EXECUTION_API)
        share_versions()
        yield "dag-processor", "triggerer"
        _load(API_SERVER)
        yield ("api-server",)


def _load(names: Sequence[str]) -> None:
    for name in names:
        importlib.import_module(name)


def share_versions() -> None:
    """Make the routes of the execution API once, of its newest version: 1 CPU-s that api-server, triggerer and dag-processor share.

    Each app copies the routes into its own router. All nine versions would cost 4 CPU-s in each of them; every process that this launcher
    starts, and every step of theirs, runs on the same installed packages and speaks the newest. If this internal way is gone, all
    versions are made at the first step, as by default.
    """
    from airflow.api_fastapi.execution_api.app import create_task_execution_api_app

    applications: Any = importlib.import_module("cadwyn.applications")
    generate = applications.generate_versioned_routers
    made: list[Any] = []

    def once(router: Any, versions: Any, **kwargs: Any) -> Any:
        if not made:
            made.append(generate(*_newest(router, versions), **kwargs))
        return made[0]

    try:
        applications.generate_versioned_routers = once
        create_task_execution_api_app()._cadwyn_initialize()  # type: ignore[attr-defined]
    except Exception as error:
        applications.generate_versioned_routers = generate
        print(f"airlock: the execution API is not warm: {error}", file=sys.stderr)


def _newest(router: Any, versions: Any) -> tuple[Any, Any]:
    """What the newest version alone is made of: its routes, and the bundle without the older ones. All, if the steps speak another."""
    from airflow.sdk.api.datamodels._generated import API_VERSION
    from cadwyn.route_generation import _DELETED_ROUTE_TAG

    if versions.versions[0].value != API_VERSION:
        return router, versions
    routes, newest = copy.copy(router), copy.copy(versions)
    routes.routes = [route for route in router.routes if _DELETED_ROUTE_TAG not in getattr(route, "tags", ())]
    newest.versions = versions.versions[:1]
    return routes, newest


def is_newest(dsn: str, patience_s: float = 150.0) -> bool:
    """Whether Airflow's metadata database is at its newest version; waits until it is there at all.

    Args:
        dsn: address of the database, as its owner.
        patience_s: seconds to wait for a server and a database that are just being made.

    Raises:
        psycopg.OperationalError: the database is still not there.
    """
    return _version(dsn, patience_s) == _newest_revision()


def migrate() -> None:
    """Bring Airflow's metadata database to its newest version."""
    from airflow.utils.db import initdb

    initdb()


_MADE = "SELECT version_num FROM alembic_version WHERE EXISTS (SELECT FROM slot_pool) AND EXISTS (SELECT FROM log_template)"
"""The version of a database that was made to the end: these rows come last."""


def _version(dsn: str, patience_s: float) -> str | None:
    end = time.monotonic() + patience_s
    while True:
        try:
            with psycopg.connect(dsn, connect_timeout=5) as connection:
                row = connection.execute(_MADE).fetchone()
            return row[0] if row else None
        except psycopg.errors.UndefinedTable:
            return None
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _newest_revision() -> str:
    """Airflow's head; nothing if it no longer tells it so, and then Airflow looks itself."""
    heads: dict[str, str] = getattr(importlib.import_module("airflow.utils.db"), "_REVISION_HEADS_MAP", {})
    return next(reversed(heads.values()), "")


JOBS = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}
_END = "UPDATE job SET state = 'failed', end_date = now() WHERE job_type = %s AND hostname = %s AND end_date IS NULL AND state = 'running'"


def end_predecessor(name: str, dsn: str) -> None:
    """Tell Airflow that the component of this machine that ran before has ended, so that its triggers and steps are taken over at once.

    The launcher starts a component only when it has reaped the one before, and each home has a metadata database of its own. Without
    this Airflow waits until the dead one's heartbeat is older than its threshold (12 and 15 s); that stays for all that is not ours.

    Args:
        name: of the component.
        dsn: address of Airflow's metadata database, as its owner.
    """
    from airflow.utils.net import get_hostname

    if name not in JOBS:
        return
    try:
        with psycopg.connect(dsn, connect_timeout=5) as connection:
            connection.execute(_END, (JOBS[name], get_hostname()))
    except psycopg.Error as error:
        print(f"airlock: the {name} before this one is taken over after its threshold: {error}", file=sys.stderr)


def component(argv: tuple[str, ...], dsn: str) -> int:
    """Be one of Airflow's components: run its command line in this process.

    Args:
        argv: for example ``("scheduler", "-s")``.
        dsn: address of Airflow's metadata database, as its owner.

    Returns:
        The exit code.
    """
    from airflow.__main__ import main

    end_predecessor(argv[0], dsn)
    sys.argv = ["airflow", *argv]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
