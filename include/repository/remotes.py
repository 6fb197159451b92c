"""The one port to where a repository really lives. Everything of ours works on its mirror; only what stands here reaches beyond."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from include.repository.folder import Folder


class Remote(Protocol):
    """Where a repository really lives."""

    def heads(self) -> dict[str, str]:
        """Ask for all branches: name to commit. Raises BadInput: it cannot be read."""

    def fetch(self, mirror: Path, branch: str) -> str:
        """Bring one branch into the mirror, as ``refs/base/<branch>``; returns its commit. Raises BadInput: there is no such branch."""

    def push(self, mirror: Path, commit: str, ref: str, expected: str) -> str | None:
        """Move a branch from the commit where it must be to another one; returns None, or why it was refused. Raises GitFailed."""

    def mend(self, mirror: Path) -> None:
        """Undo what a push of ours left that was killed. Raises GitFailed."""

    def keep(self, mirror: Path, commit: str, ref: str) -> None:
        """Put a commit on a branch that is ours, wherever that branch was before. Raises GitFailed."""


def at(address: str) -> Remote:
    """Choose who speaks to a repository.

    Args:
        address: as it is registered: the absolute path of a folder on this machine.
    """
    return Folder(address)
