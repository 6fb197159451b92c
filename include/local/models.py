"""What the supervisor tells of its processes, as it stands in ``home/run/state.json``."""

from __future__ import annotations

from pydantic import Field

from include.frozen import Frozen


class ProcessState(Frozen):
    """How one process fares."""

    state: str = "unknown"  # waiting, starting, ready, unhealthy, done, crashed, stopped
    pid: int | None = None  # None: it does not run
    restarts: int = 0
    falls: int = 0  # restarts in a row after a short life
    since: float = 0.0  # of its start, in seconds since 1970
    address: str = ""
    exit: int | None = None  # how it ended the last time

    @property
    def is_up(self) -> bool:
        """Tell whether it answers, or has done what it was for."""
        return self.state in ("ready", "done")


class Known(Frozen):
    """What the supervisor last wrote; with every default: it has written nothing yet."""

    state: str = "starting"  # starting, ready, stopping, down
    pid: int = 0
    notes: tuple[str, ...] = ()
    model: str = ""  # who answers, in words for a person
    processes: dict[str, ProcessState] = Field(default_factory=dict)

    def process(self, name: str) -> ProcessState:
        """Tell of one process; of one that it does not know, that it is unknown."""
        return self.processes.get(name, ProcessState())

    @property
    def waiting(self) -> dict[str, ProcessState]:
        """List the processes that are not up."""
        return {name: process for name, process in self.processes.items() if not process.is_up}
