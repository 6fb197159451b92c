"""How long each target was away: from the kill until it is ready again."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from include.database.unit_of_work import transaction
from include.drills.chaos import store
from include.drills.chaos.models import Fault
from include.drills.chaos.targets import COMPONENTS, PROCESSES, Hit, component_pid
from include.errors import Unavailable
from include.local import control
from include.settings import Settings

LOOK_S = 0.5
_PARTS = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


@dataclass
class Outage:
    """A kill whose target is not ready yet."""

    fault: Fault
    hit: Hit
    killed_at: float  # seconds since 1970
    began: float = field(default_factory=time.monotonic)


class Outages:
    """Looks twice a second whether what was killed is ready again, and remembers every fault."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: list[Outage] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._http = httpx.Client(base_url=settings.api_url, timeout=3, trust_env=False, verify=False)
        self.faults: list[Fault] = []
        self._armed: list[Fault] = []
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def killed(self, fault: Fault, hit: Hit) -> None:
        """Begin to wait for a target. One that was not back from an earlier kill counts from that one, once."""
        with self._lock:
            if fault.kind == "stop":
                self.faults.append(fault)
                return
            again = [outage for outage in self._open if outage.fault.target == fault.target and fault.target != "worker"]
            for outage in again:
                self._open.remove(outage)
                self.faults.append(outage.fault)
            began = min([outage.began for outage in again], default=time.monotonic())
            self._open.append(Outage(fault, hit, time.time(), began))

    def armed(self, fault: Fault) -> None:
        """Remember a fault point; it is a fault only if somebody dies there."""
        self._armed.append(fault)

    def back(self, target: str) -> None:
        """Note that a target is back which only the caller can tell of: the supervisor, or everything."""
        with self._lock:
            for outage in [outage for outage in self._open if outage.fault.target == target]:
                self._close(outage)

    def is_whole(self) -> bool:
        """Tell whether every process that was killed is ready again (a worker's work may still wait for its turn)."""
        with self._lock:
            return all(outage.fault.target == "worker" for outage in self._open)

    def end(self) -> list[Fault]:
        """Stop looking; what is still away stays without a time, and points that nobody came by are no faults."""
        self._ended.set()
        self._thread.join()
        self.faults += [outage.fault for outage in self._open]
        self.faults += [fault for fault in self._armed if not (self._settings.home / "faults" / fault.target).exists()]
        return sorted(self.faults, key=lambda fault: fault.at_s)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_S):
            with self._lock:
                waiting = list(self._open)
            for outage in waiting:
                if self._is_back(outage):
                    with self._lock:
                        if outage in self._open:
                            self._close(outage)

    def _close(self, outage: Outage) -> None:
        self._open.remove(outage)
        self.faults.append(outage.fault.model_copy(update={"recovery_s": round(time.monotonic() - outage.began, 2)}))

    def _is_back(self, outage: Outage) -> bool:
        target = outage.fault.target
        if target == "worker":
            return self._work_goes_on(outage.hit.lease)
        if target in COMPONENTS:
            return self._component_is_back(target, outage)
        if target in PROCESSES or target == "streams wiped":
            return self._process_is_back(PROCESSES.get(target, "valkey"), outage.hit.pids)
        return False

    def _process_is_back(self, name: str, killed: tuple[int, ...]) -> bool:
        if control.supervisor_pid(self._settings.home) is None:
            return False
        process = control.state(self._settings.home).process(name)
        return process.state == "ready" and process.pid not in (None, *killed)

    def _component_is_back(self, name: str, outage: Outage) -> bool:
        if component_pid(self._settings, name) in (None, *outage.hit.pids):
            return False
        try:
            health = self._http.get("/api/v2/monitor/health").json()
        except (httpx.HTTPError, ValueError):
            return False
        return name == "api-server" or _beats_since(health.get(_PARTS[name]) or {}, _PARTS[name], outage.killed_at)

    def _work_goes_on(self, lease: str) -> bool:
        try:
            with transaction("owner") as connection:
                return store.replaced(connection, lease)
        except Unavailable:
            return False


def _beats_since(part: dict[str, Any], name: str, when: float) -> bool:
    """Tell whether a part's heartbeat came after the kill, and so from the new process."""
    said = str(part.get(f"latest_{name}_heartbeat") or "")
    return part.get("status") == "healthy" and said != "" and datetime.fromisoformat(said).timestamp() > when
