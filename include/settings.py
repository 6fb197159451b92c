"""All settings of Airlock: read from the environment once, typed, with the default and the meaning beside each.

Files that hold state lie under ``home`` (``$AIRLOCK_HOME``, else ``.airlock`` beside this code). Addresses and generated
credentials lie in ``home/runtime.json`` (mode 0600), which the launcher writes; an environment variable beats it.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ROOT = Path(__file__).resolve().parent.parent


class Settings(BaseModel):
    """Each field is read from ``AIRLOCK_<FIELD>`` in upper case, else from ``runtime.json``, else has its default."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    # -- of all rooms --------------------------------------------------------------------------------------------------
    home: Path = Field(default=ROOT / ".airlock", description="Folder of all state.")

    # -- database: PostgreSQL ------------------------------------------------------------------------------------------
    pg_bin: str | None = Field(default=None, description="Folder of PostgreSQL binaries; default: the wheel's, then Debian's newest.")
    pg_host: str = Field(default="127.0.0.1", description="PostgreSQL's host. Another than the default uses the machine's server.")
    pg_port: int = Field(default=0, ge=0, le=65_535, description="PostgreSQL's TCP port; chosen by the launcher when 0.")
    pg_password: str = Field(default="", description="Password of every role of ours in the local default (generated).")
    pg_database: str = Field(default="airlock", description="Database of Airlock's own tables.")

    # -- messages: the stream server -----------------------------------------------------------------------------------
    valkey_bin: str | None = Field(default=None, description="Valkey (or Redis >= 7) server binary; default: the wheel's.")
    valkey_host: str = Field(default="127.0.0.1", description="Stream server's host.")
    valkey_port: int = Field(default=0, ge=0, le=65_535, description="Stream server's TCP port; chosen by the launcher when 0.")
    valkey_password: str = Field(default="", description="Password of the stream users broker and relay (generated).")

    # -- flow: Airflow's API server and UI -----------------------------------------------------------------------------
    api_port: int = Field(
        default=8080, ge=0, le=65_535, description="Port of Airflow's API server and UI; another is chosen when it is taken."
    )
    api_password: str = Field(default="", description="Password of Airflow's users admin (people) and airlock (steps, CLI); generated.")

    # -- fleet: this machine's node ------------------------------------------------------------------------------------
    node: str = Field(default="local", description="Name of this machine's node.")
    node_capacity: int = Field(default=4, ge=1, le=10_000, description="Most sandboxes that run at once on this node.")

    # -- sandbox: what holds workers and tests -------------------------------------------------------------------------
    sandbox_root: Path | None = Field(
        default=None,
        description="Folder of the attempts' directories. Every parent must be searchable by all when the warden runs as root; "
        "default: home/sandboxes if it is, else /var/lib/airlock/<hash of home>.",
    )
    engine: str = Field(default="auto", description="auto, docker or bubblewrap: which sandbox engine the warden uses.")
    docker_host: str = Field(default="unix:///var/run/docker.sock", description="Address of the Docker engine, for the warden only.")
    image: str = Field(default="airlock/worker:latest", description="Image of worker and verify containers.")
    reap_s: int = Field(
        default=10, ge=1, le=86_400, description="Seconds between two rounds in which a warden removes what no live lease owns."
    )
    test_timeout_s: int = Field(default=600, ge=1, le=86_400, description="Seconds a verification's or a worker's test run may take.")

    # -- broker: the model ---------------------------------------------------------------------------------------------
    anthropic_base_url: str = Field(default="", description="Endpoint of the Messages API; empty: the SDK's default.")
    model_timeout_s: int = Field(default=600, ge=1, le=86_400, description="Seconds a model call may take.")
    model_attempts: int = Field(default=4, ge=1, le=100, description="HTTP attempts per model call (429, 529, 5xx, connection errors).")

    # -- offline: the model that costs nothing -------------------------------------------------------------------------
    offline: bool = Field(default=False, description="True: the offline model answers (no key was given).")
    offline_port: int = Field(default=0, ge=0, le=65_535, description="Port of the offline model; chosen by the launcher when 0.")
    playbooks: str = Field(default="", description="Folder of more playbooks for the offline model.")

    # -- plans: how large one may be -----------------------------------------------------------------------------------
    max_width: int = Field(default=10, ge=1, le=1_000, description="Most tasks of a plan that may run side by side.")
    max_tasks: int = Field(default=40, ge=1, le=1_000, description="Most tasks in a plan.")

    # -- tasks: how often an attempt is done again ---------------------------------------------------------------------
    attempts: int = Field(default=3, ge=1, le=1_000, description="Attempts that count, per task run.")
    infrastructure_attempts: int = Field(
        default=10, ge=1, le=1_000, description="Attempts lost to infrastructure (also to a model that stays away), per task run."
    )

    # -- leases: the pace; all other durations of it follow from these, see below --------------------------------------
    heartbeat_s: int = Field(default=10, ge=1, le=86_400, description="Seconds between a worker's heartbeats.")
    heartbeat_timeout_s: int = Field(
        default=30, ge=1, le=86_400, description="Seconds without a heartbeat after which the lease is broken."
    )
    unwatched_s: int = Field(
        default=60, ge=1, le=86_400, description="Seconds without a watch, while Airflow keeps up, after which an attempt is over."
    )
    grace_s: int = Field(default=3, ge=0, le=3_600, description="Seconds between a revoke's task.cancel and the kill.")

    # -- goals: how long what has ended is kept ------------------------------------------------------------------------
    keep_events_days: int = Field(
        default=90, ge=1, le=36_500, description="Days after a goal run's end until its events, messages and notices are pruned."
    )
    keep_transcripts_days: int = Field(
        default=30, ge=1, le=36_500, description="Days after a goal run's end until its transcripts, logs, hand-ins and bundles are pruned."
    )

    # -- for tests -----------------------------------------------------------------------------------------------------
    corpora: str = Field(default="", description="Folder of foreign test inputs; default ../shared/corpora beside this code.")

    # -- derived -------------------------------------------------------------------------------------------------------

    def dsn(self, role: str, database: str | None = None) -> str:
        """The address of a database for one of our roles.

        Args:
            role: ``owner``, ``airflow``, ``broker``, ``warden``, ``gatekeeper``, ``cli`` or ``viewer``.
            database: default: Airlock's own.
        """
        name = database or self.pg_database
        return f"postgresql://airlock_{role}:{self.pg_password}@{self.pg_host}:{self.pg_port}/{name}"

    def valkey_url(self, user: str) -> str:
        """The address of the stream server for ``broker`` or ``relay``."""
        return f"redis://{user}:{self.valkey_password}@{self.valkey_host}:{self.valkey_port}/0"

    @property
    def api_url(self) -> str:
        """Base address of Airflow's API server and UI."""
        return f"http://127.0.0.1:{self.api_port}"

    # The pace: which duration follows from which. A lower heartbeat timeout makes all of these faster.

    @property
    def pulse_s(self) -> float:
        """Seconds between two beats of a pulse (broker, relay): fifteen fit into the heartbeat timeout."""
        return self.heartbeat_timeout_s / 15

    @property
    def pulse_gap_s(self) -> float:
        """Seconds without a beat after which a pulse was away: three beats. Who comes back later begins a calm."""
        return 3 * self.pulse_s

    @property
    def silence_s(self) -> float:
        """Seconds without a worker's heartbeat after which it is silent: the heartbeat timeout itself."""
        return float(self.heartbeat_timeout_s)

    @property
    def calm_s(self) -> float:
        """Seconds after an outage in which nothing expires and nobody is silent: time enough for one heartbeat of everybody."""
        return self.silence_s

    @property
    def last_line_s(self) -> float:
        """Seconds past its lease after which a sandbox ends itself: after the calm, and after as long again for the warden."""
        return 2 * self.calm_s

    @property
    def call_s(self) -> float:
        """Seconds that a model call may take with all its HTTP attempts and the waits between them; then it is not under way."""
        return float(self.model_attempts * (self.model_timeout_s + 40) + 60)

    @property
    def run_dir(self) -> Path:
        """Sockets and pid files (mode 0700)."""
        return self.home / "run"

    @property
    def logs_dir(self) -> Path:
        """Logs of the processes."""
        return self.home / "logs"

    @property
    def keys_dir(self) -> Path:
        """Model keys, one file of mode 0600 an agent: ``<agent>.key``."""
        return self.home / "keys"

    @property
    def mirrors_dir(self) -> Path:
        """Bare mirrors of the people's repositories: ``<repository>.git``."""
        return self.home / "mirrors"

    @property
    def bundles_dir(self) -> Path:
        """Bundles that go into sandboxes, one a commit: ``<commit>.bundle``."""
        return self.home / "bundles"

    @property
    def handins_dir(self) -> Path:
        """What sandboxes handed in, copied by the warden: ``<lease id>``."""
        return self.home / "handins"

    @property
    def toolbox_dir(self) -> Path:
        """worker.pyz and pytest's packages, mounted read-only into every sandbox as /opt/airlock."""
        return self.home / "toolbox"

    @property
    def warden_socket(self) -> Path:
        """Where the warden answers the few calls of the Docker Engine API."""
        return self.run_dir / "warden.sock"


def _home() -> Path:
    return Path(os.environ.get("AIRLOCK_HOME") or ROOT / ".airlock").absolute()


def load(home: Path | None = None) -> Settings:
    """Read the settings afresh: environment, then ``runtime.json``, then defaults.

    Raises:
        pydantic.ValidationError: a variable, or a stored value, cannot be used (the message names it; the command line says it in words).
    """
    home = home or _home()
    values: dict[str, Any] = {}
    stored = home / "runtime.json"
    if stored.exists():
        values.update(json.loads(stored.read_text()))
    for name in Settings.model_fields:
        if (value := os.environ.get(f"AIRLOCK_{name.upper()}")) not in (None, ""):
            values[name] = value
    values["home"] = home
    return Settings.model_validate(values)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process, read once."""
    return load()
