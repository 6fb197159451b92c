"""What git as data is made of: a change of a file, a candidate for a merge, a conflict."""

from __future__ import annotations

from typing import Literal, NamedTuple

from include.frozen import Frozen


class FileChange(Frozen):
    """One path that differs between two commits. ``patch`` is text, capped; empty for a binary file."""

    path: str
    action: Literal["created", "modified", "deleted"]
    additions: int
    deletions: int
    patch: str = ""


class Candidate(NamedTuple):
    """A commit that a ref may move to, if its exact tree passes. ``parents[0]`` is where the ref must be."""

    commit: str
    tree: str
    parents: tuple[str, ...]


class MergeConflict(NamedTuple):
    """Two commits that cannot be merged: the paths, and git's words on each."""

    paths: tuple[str, ...]
    messages: tuple[str, ...]

    def words(self) -> str:
        """Say where they conflict, in one sentence."""
        return f"conflict in {', '.join(self.paths[:10])}" + (f" and {len(self.paths) - 10} more" if len(self.paths) > 10 else "")
