"""Airflow under our roof: its settings, and the launcher that imports it once and forks its four components.

``python -m include.local.airflow`` migrates Airflow's metadata database, forks scheduler, dag-processor, triggerer and api-server (each the
leader of a process group of its own, with a log of its own), and stays as their parent. A component that dies is forked again with backoff;
SIGTERM ends all. Every process that is forked dies with its parent, so kill -9 of the launcher leaves nothing behind.
"""

from __future__ import annotations

import base64
import ctypes
import gc
import json
import os
import secrets
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from include.settings import ROOT, Settings, settings

COMPONENTS = {
    "scheduler": ("scheduler", "-s"),  # -s: no log server of its own, the api-server reads the files
    "dag-processor": ("dag-processor",),
    "api-server": ("api-server",),
    "triggerer": ("triggerer", "-s"),
}
STOP_S = 8.0  # how long a component may take to end on SIGTERM before its group is killed
STEADY_S = 15.0  # a component that lived so long starts its backoff anew
MAX_PAUSE_S = 8.0  # longest pause before a component is started again: who watches the leases may not stay away

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


# -- settings ------------------------------------------------------------------------------------------------------------


def environment(settings: Settings) -> dict[str, str]:
    """The environment of Airflow's processes (docs: Airflow's configuration reference; why each value: ``docs/settings.md``).

    Writes, where missing, the generated secrets and the login file of the local default under ``home/airflow`` (mode 0600).

    Args:
        settings: ours.

    Returns:
        ``AIRFLOW_HOME``, ``AIRFLOW__SECTION__KEY`` for what differs from Airflow's default, ``PYTHONPATH``, ``NO_PROXY``, ``AIRLOCK_HOME``.
    """
    home = settings.home / "airflow"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = {
        f"AIRFLOW__{section}__{key}".upper(): value
        for section, values in _sections(settings, home).items()
        for key, value in values.items()
    }
    return {
        **keys,
        "AIRFLOW_HOME": str(home),
        "AIRLOCK_HOME": str(settings.home),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'config'}",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY", ""), "127.0.0.1,localhost"])),
    }


def _sections(settings: Settings, home: Path) -> dict[str, dict[str, str]]:
    secret = _secrets(home / "secrets.json")
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
            "fernet_key": secret["fernet"],
            "auth_manager": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
            "simple_auth_manager_users": "admin:admin,airlock:op",
            "simple_auth_manager_passwords_file": str(_logins(home / "logins.json", settings.api_password)),
            "mp_start_method": "fork",  # a task costs 0.9 s more with spawn
        },
        "database": {
            "sql_alchemy_conn": settings.dsn("owner", "airflow").replace("postgresql://", "postgresql+psycopg2://", 1),
            "load_default_connections": "False",
        },
        "api": {
            "host": "127.0.0.1",
            "port": str(settings.api_port),
            "base_url": settings.api_url,
            "instance_name": "Airlock",
            "secret_key": secret["api"],
            "workers": "1",
        },
        "api_auth": {"jwt_secret": secret["jwt"], "jwt_issuer": "airlock"},
        "scheduler": {
            "scheduler_idle_sleep_time": "0",  # the executor waits instead, until something happens (include/flow/executor.py)
            "task_instance_heartbeat_timeout": "30",
            "task_instance_heartbeat_timeout_detection_interval": "5",
            "orphaned_tasks_check_interval": "15",
            "scheduler_health_check_threshold": "12",
        },
        "triggerer": {"job_heartbeat_sec": "2", "triggerer_health_check_threshold": "15", "queues_enabled": "False"},
        "workers": {
            "min_heartbeat_interval": "1",  # else a worker slot stays held for 5 s after many a step
            "execution_api_retries": "20",  # a step that begins while the api-server is away waits for it for a minute or more
            "execution_api_retry_wait_max": "5",
        },
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
    """Airflow's list of DAG bundles: the folder ``dags/``, and the goals' plans by the class ``plan_bundle`` names."""
    local = "airflow.dag_processing.bundles.local.LocalDagBundle"
    return [
        {"name": "airlock", "classpath": local, "kwargs": {"path": str(ROOT / "dags"), "refresh_interval": 60}},
        {"name": "plans", "classpath": plan_bundle, "kwargs": {"refresh_interval": 1}},
    ]


def write_private(path: Path, text: str) -> Path:
    """Write a file that only we can read, by rename."""
    draft = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.rename(path)
    return path


def _secrets(path: Path) -> dict[str, str]:
    if not path.exists():
        fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        write_private(path, json.dumps({"fernet": fernet, "api": secrets.token_hex(32), "jwt": secrets.token_hex(64)}))
    stored: dict[str, str] = json.loads(path.read_text())
    return stored


def _logins(path: Path, password: str) -> Path:
    return write_private(path, json.dumps({"admin": password, "airlock": password}))


# -- launcher ------------------------------------------------------------------------------------------------------------


def die_with_parent() -> None:
    """In a process that was just forked: be killed when the parent ends, however it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Component:
    """One of Airflow's four, as a child process."""

    def __init__(self, name: str, argv: tuple[str, ...], log: Path) -> None:
        self.name, self.argv, self.log = name, argv, log
        self.pid = 0
        self.deaths = 0
        self.started = self.due = 0.0

    def fork(self) -> None:
        """Start it from the memory image of this process."""
        self.started = time.monotonic()
        launcher = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._live(launcher)

    def _live(self, launcher: int) -> None:
        code = 1
        try:
            os.setsid()
            if os.getppid() != launcher:
                os._exit(1)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            gc.enable()
            output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.dup2(output, 1)
            os.dup2(output, 2)
            from include.flow.preload import component

            code = component(self.argv, settings().dsn("owner", "airflow"))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def died(self) -> None:
        """Note a death, and when to start again: after 1, 2, 4, 8 s."""
        now = time.monotonic()
        self.deaths = 1 if now - self.started > STEADY_S else self.deaths + 1
        self.pid, self.due = 0, now + min(MAX_PAUSE_S, 2.0 ** (self.deaths - 1))


class Launcher:
    """The parent of the four."""

    def __init__(self, settings: Settings) -> None:
        settings.logs_dir.mkdir(parents=True, exist_ok=True)
        settings.run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.pids = settings.run_dir / "airflow.json"
        self.parts = [Component(name, argv, settings.logs_dir / f"airflow-{name}.log") for name, argv in COMPONENTS.items()]

    def run(self) -> None:
        """Keep the four alive until SIGTERM or SIGINT, then end them."""
        waited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
        signal.pthread_sigmask(signal.SIG_BLOCK, waited)
        if any(part.pid for part in self.parts):
            self._bury()  # who ended before we listened
        while True:
            self._start_due()
            got = signal.sigtimedwait(waited, self._pause())
            self._bury()
            if got and got.si_signo != signal.SIGCHLD:
                return self._stop()

    def start(self, names: Sequence[str]) -> None:
        """Start these before ``run`` keeps them all alive."""
        self._start([part for part in self.parts if part.name in names])

    def _start_due(self) -> None:
        self._start([part for part in self.parts if not part.pid and part.due <= time.monotonic()])

    def _start(self, due: list[Component]) -> None:
        for part in due:
            part.fork()
        if due:
            self._write()

    def _pause(self) -> float:
        """Seconds until a dead component is due again."""
        return max(0.05, min((part.due - time.monotonic() for part in self.parts if not part.pid), default=3600.0))

    def _bury(self) -> list[str]:
        """Kill what is left of the groups of dead components, then reap those."""
        names = []
        while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            part = next((part for part in self.parts if part.pid == dead.si_pid), None)
            if part:
                _kill_group(part.pid, signal.SIGKILL)
                print(f"airflow {part.name} (pid {part.pid}) ended with {dead.si_status}; its log: {part.log}", flush=True)
                part.died()
                names.append(part.name)
                self._write()
            os.waitpid(dead.si_pid, 0)
            if not any(part.pid for part in self.parts):
                break
        return names

    def _stop(self) -> None:
        for part in self.parts:
            if part.pid:
                os.kill(part.pid, signal.SIGTERM)
        end = time.monotonic() + STOP_S
        while any(part.pid for part in self.parts) and (left := end - time.monotonic()) > 0:
            signal.sigtimedwait({signal.SIGCHLD}, left)
            self._bury()
        for part in self.parts:
            if part.pid:
                _kill_group(part.pid, signal.SIGKILL)
                os.waitpid(part.pid, 0)
        self.pids.unlink(missing_ok=True)

    def _write(self) -> None:
        alive = {part.name: part.pid for part in self.parts if part.pid}
        write_private(self.pids, json.dumps({"launcher": os.getpid(), **alive}))


def _kill_group(pid: int, signal_: int) -> None:
    try:
        os.killpg(pid, signal_)
    except (ProcessLookupError, PermissionError):
        pass


def _fork(work: Callable[[], object]) -> int:
    """Do this in a child of our own, which ends without running our exit handlers; returns its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def main(overrides: Mapping[str, str] | None = None) -> None:
    """Run Airflow until SIGTERM.

    Args:
        overrides: environment variables that differ from ``environment``'s.
    """
    os.environ.update({**environment(settings()), **(overrides or {})})
    sys.path[:] = [str(ROOT), str(ROOT / "config"), *(entry for entry in sys.path if entry not in ("", str(ROOT), str(ROOT / "config")))]
    os.register_at_fork(after_in_child=die_with_parent)
    launcher = Launcher(settings())
    gc.disable()  # a fifth of the imports' time; what they make stays anyway
    _fork_in_stages(launcher, settings().dsn("owner", "airflow"))
    gc.enable()
    launcher.run()


def _fork_in_stages(launcher: Launcher, dsn: str) -> None:
    """Import what Airflow needs, and fork each component as soon as it has all of it: it begins while the rest is imported."""
    from include.flow.preload import is_newest, migrate, stages

    made, migration = False, 0
    for names in stages():
        if not migration and not made:
            made = is_newest(dsn)
            migration = 0 if made else _fork(migrate)  # beside the imports; a child, so that no connection is inherited by the four
        gc.collect()
        gc.freeze()
        if made:
            launcher.start(names)
    if migration and os.waitpid(migration, 0)[1]:
        sys.exit("Airflow's metadata database could not be brought to its newest version; the reason stands above.")


if __name__ == "__main__":
    main()
