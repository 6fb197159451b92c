"""Where things lie inside a sandbox (docs/architecture.md, "Inside a sandbox"). The zipapp always uses the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Paths(NamedTuple):
    """The fixed places of a sandbox; a test gives others."""

    toolbox: Path = Path("/opt/airlock")
    task: Path = Path("/run/task")
    secret: Path = Path("/run/secret")
    workspace: Path = Path("/workspace")
    scratch: Path = Path("/tmp")

    @property
    def program(self) -> Path:
        """This program, for the children that seal themselves."""
        return self.toolbox / "worker.pyz"

    @property
    def site(self) -> Path:
        """pytest and what it imports."""
        return self.toolbox / "site"

    @property
    def socket(self) -> Path:
        """The relay's socket."""
        return self.task / "relay.sock"

    @property
    def bundle(self) -> Path:
        """The code as it comes in."""
        return self.task / "base.bundle"

    @property
    def spec(self) -> Path:
        """The lease's terms for the sandbox."""
        return self.task / "spec.json"

    @property
    def key(self) -> Path:
        """The attempt's two signing keys; read once."""
        return self.secret / "key.json"

    @property
    def repo(self) -> Path:
        """The work tree."""
        return self.workspace / "repo"

    @property
    def git(self) -> Path:
        """git's own folder: outside the work tree, so that neither tools nor tests can write hooks or configuration."""
        return self.workspace / "git"

    @property
    def incoming(self) -> Path:
        """Files are written here first and then renamed into the work tree."""
        return self.workspace / "incoming"

    @property
    def handin(self) -> Path:
        """The result; a regular file that appears whole or not at all."""
        return self.workspace / "handin"
