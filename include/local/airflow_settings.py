"""The settings of Airflow's processes: what differs from Airflow's defaults, a function a group of its sections."""

from __future__ import annotations

import base64
import json
import os
import secrets
from pathlib import Path

from include.frozen import Frozen
from include.local.files import write_private
from include.settings import ROOT, Settings

Sections = dict[str, dict[str, str]]
"""Values by section and key of Airflow's configuration."""


class Secrets(Frozen):
    """What Airflow signs and encrypts with, made at the first start and kept in ``home/airflow/secrets.json``."""

    fernet: str
    api: str
    jwt: str


def environment(settings: Settings) -> dict[str, str]:
    """Make the environment of Airflow's processes (docs: Airflow's configuration reference; why each value: ``docs/settings.md``).

    Writes, where missing, the generated secrets and the login file of the local default under ``home/airflow`` (mode 0600).

    Args:
        settings: ours.

    Returns:
        ``AIRFLOW_HOME``, ``AIRFLOW__SECTION__KEY`` for what differs from Airflow's default, ``PYTHONPATH``, ``NO_PROXY``, ``AIRLOCK_HOME``.
    """
    home = settings.home / "airflow"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    secret = _secrets(home / "secrets.json")
    sections = {**_core(settings, home, secret), **_servers(settings, secret), **_pace(), **_folders(home)}
    keys = {f"AIRFLOW__{section}__{key}".upper(): value for section, values in sections.items() for key, value in values.items()}
    return {
        **keys,
        "AIRFLOW_HOME": str(home),
        "AIRLOCK_HOME": str(settings.home),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'config'}",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"])),
    }


def _core(settings: Settings, home: Path, secret: Secrets) -> Sections:
    """Say what runs, where it lies, and who may log in."""
    return {
        "core": {
            "executor": "include.flow.executor.HoldingLocalExecutor",
            "parallelism": str(max(4, settings.node_capacity + 2)),
            "dags_folder": str(ROOT / "dags"),
            "plugins_folder": str(ROOT / "plugins"),
            "load_examples": "False",
            "dags_are_paused_at_creation": "False",  # a goal starts by itself
            "min_serialized_dag_update_interval": "0",  # else a new plan within 30 s is silently not seen
            "execution_api_server_url": f"{settings.api_url}/execution/",
            "fernet_key": secret.fernet,
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": "admin:admin,airlock:op",
            "simple_auth_manager_passwords_file": str(_logins(home / "logins.json", settings.api_password)),
            "mp_start_method": "fork",  # a task costs 0.9 s more with spawn
        }
    }


def _servers(settings: Settings, secret: Secrets) -> Sections:
    """Say where Airflow's database is, and where its API server listens."""
    return {
        "database": {
            "sql_alchemy_conn": settings.dsn("owner", "airflow").replace("postgresql://", "postgresql+psycopg2://", 1),
            "load_default_connections": "False",
        },
        "api": {
            "host": "127.0.0.1",
            "port": str(settings.api_port),
            "base_url": settings.api_url,
            "instance_name": "Airlock",
            "secret_key": secret.api,
            "workers": "1",
        },
        "api_auth": {"jwt_secret": secret.jwt, "jwt_issuer": "airlock"},
    }


def _pace() -> Sections:
    """Say how often scheduler, triggerer and steps look, and how soon one of them counts as lost."""
    return {
        "scheduler": {
            "scheduler_idle_sleep_time": "0",  # the executor waits instead, until something happens (include/flow/executor.py)
            "task_instance_heartbeat_timeout": "30",
            "task_instance_heartbeat_timeout_detection_interval": "5",
            "orphaned_tasks_check_interval": "15",
            "scheduler_health_check_threshold": "12",
        },
        "triggerer": {
            "job_heartbeat_sec": "2",
            "triggerer_health_check_threshold": "15",
            "queues_enabled": "False",
            "capacity": "5000",  # submissions that wait for their goals must take no lease step's place
        },
        "workers": {
            "min_heartbeat_interval": "1",  # else a worker slot stays held for 5 s after many a step
            "execution_api_retries": "20",  # a step that begins while the api-server is away waits for it for a minute or more
            "execution_api_retry_wait_max": "5",
        },
    }


def _folders(home: Path) -> Sections:
    """Say where DAG files come from, and where logs go."""
    return {
        "dag_processor": {
            "refresh_interval": "60",
            "bundle_refresh_check_interval": "1",
            "min_file_process_interval": "86400",  # new and changed files are parsed anyway
            "dag_bundle_storage_path": str(home / "bundles"),
            "dag_bundle_config_list": json.dumps(bundles("include.flow.bundle.PlanBundle")),
        },
        "logging": {
            "base_log_folder": str(home / "logs"),
            "dag_processor_child_process_log_directory": str(home / "logs" / "dag_processor"),
            "colored_console_log": "False",
        },
    }


def bundles(plan_bundle: str) -> list[dict[str, object]]:
    """List Airflow's DAG bundles: the folder ``dags/``, and the goals' plans by the class that ``plan_bundle`` names."""
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return [
        {"name": "airlock", "classpath": local, "kwargs": {"path": str(ROOT / "dags"), "refresh_interval": 60}},
        {"name": "plans", "classpath": plan_bundle, "kwargs": {"refresh_interval": 1}},
    ]


def _secrets(path: Path) -> Secrets:
    if not path.exists():
        fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        made = Secrets(fernet=fernet, api=secrets.token_hex(32), jwt=secrets.token_hex(64))
        write_private(path, made.model_dump_json())
    return Secrets.model_validate_json(path.read_bytes())


def _logins(path: Path, password: str) -> Path:
    return write_private(path, json.dumps({"admin": password, "airlock": password}))
