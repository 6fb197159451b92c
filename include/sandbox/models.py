"""What a sandbox is made of: the lease's row as the warden reads it, the spec for an engine, how it ended, what it handed in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import ConfigDict, Field, TypeAdapter

from include.frozen import Frozen


class LeaseRow(Frozen):
    """What the warden knows of a lease; ``live`` is judged by PostgreSQL's clock."""

    id: UUID
    kind: str
    sandbox: str
    task_run: str | None
    epoch: int | None
    input_commit: str
    spec: dict[str, Any]
    seconds_at_most: int  # for the sandbox's own timeout, the last line: later than any end that the warden may know of
    started: bool
    live: bool


class KeyPair(Frozen):
    """The two signing keys of an attempt: for what comes in to its worker, and for what goes out."""

    in_key: bytes
    out_key: bytes


class Over(Frozen):
    """A sandbox that is over, by the judgement of PostgreSQL, and why."""

    sandbox: str
    because: str


class ToStart(Frozen):
    """The sandbox of an attempt whose lease to work is live, and the node that it was placed on."""

    sandbox: str
    epoch: int
    node: str


class Mount(NamedTuple):
    """One bind mount: a folder of the host at a path inside."""

    source: Path
    target: str
    writable: bool


class Spec(NamedTuple):
    """All that an engine needs to make one sandbox."""

    name: str
    lease: UUID
    kind: str
    folder: Path
    mounts: tuple[Mount, ...]
    seconds: int  # after that many the sandbox's own timeout ends it
    uid: int
    python: str  # the interpreter's path inside


class Exit(NamedTuple):
    """How a sandbox ended; ``code`` is None when nobody saw it."""

    code: int | None
    out_of_memory: bool = False


class _OfDocker(Frozen):
    """A part of what the Docker engine answers; the rest is passed over."""

    model_config = ConfigDict(extra="ignore")


class ContainerState(_OfDocker):
    """How a container is: its state in Docker's words, and how it ended."""

    status: str = Field(alias="Status")
    exit_code: int = Field(alias="ExitCode")
    out_of_memory: bool = Field(alias="OOMKilled")


class Inspected(_OfDocker):
    """What an inspect of a container says."""

    state: ContainerState = Field(alias="State")


class ListedContainer(_OfDocker):
    """A row of the list of containers."""

    names: tuple[str, ...] = Field(alias="Names")
    state: str = Field(alias="State")

    @property
    def name(self) -> str:
        """Its name as it was created."""
        return self.names[0].lstrip("/")


CONTAINERS: Final = TypeAdapter(list[ListedContainer])
"""The answer to a list of containers."""


class Handin(NamedTuple):
    """What was taken out of a workspace: hash and size in bytes, or why it was refused; all None: there was none."""

    sha256: str | None = None
    size: int | None = None
    refused: str | None = None


class Evidence(NamedTuple):
    """What is stored of a sandbox before anything of it is removed."""

    exit: Exit
    log: bytes
    handin: Handin
    because: str
