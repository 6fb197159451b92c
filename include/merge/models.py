"""What becomes of a merge and of a landing."""

from __future__ import annotations

from typing import Literal, NamedTuple

from include.errors import Refused
from include.frozen import Frozen
from include.repository.models import Candidate


class LockedRun(Frozen):
    """A goal run with its repository, locked until the transaction ends: one merge or landing of it at a time."""

    id: str
    goal_branch: str
    landing_note: str
    title: str
    repository: str
    base_branch: str
    path: str


class Merged(NamedTuple):
    """What a merge step did. ``commit`` is where the task's work is in the goal branch; None when the target has moved."""

    outcome: Literal["merged", "already", "moved"]
    commit: str | None


class Landing(NamedTuple):
    """A landing that is ready to be made, or to be verified first."""

    candidate: Candidate
    base_commit: str
    needs_verification: bool
    nothing_to_do: bool  # the base branch holds the goal branch already


class Landed(NamedTuple):
    """What a landing did.

    ``moved``: the base branch has moved, prepare again. ``kept``: the result stays on the branch that the note names.
    """

    outcome: Literal["landed", "already", "kept", "moved"]
    commit: str | None
    note: str


class LandingConflict(Refused):
    """The goal branch and the base branch cannot be merged by a program. ``branch`` is where the work is kept."""

    def __init__(self, message: str, paths: tuple[str, ...], branch: str) -> None:
        super().__init__(message)
        self.paths = paths
        self.branch = branch
