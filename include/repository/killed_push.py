"""What a push of ours left in the person's repository when it was killed, and how it is undone.

git brings a checked-out work tree forward under locks, and moves the branch last. Killed between, it leaves locks, or files of a commit
that the branch is not at, and every later push is refused. So a push is alone, written down in the mirror before it begins, and struck
out when git has answered; whoever comes next undoes what is still written down. What may be a person's is not touched.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple

from include.errors import GitFailed
from include.repository import git

ALONE_S: Final = 60.0
"""Longest wait for another push into the same repository, which takes milliseconds."""
STILL_S: Final = 3.0
"""A lock that has not changed for so long, while no git is at work there, was left behind: a git that lives holds one for milliseconds, and
one that waits for its editor is seen at work."""
PATIENCE_S: Final = 10.0
"""Longest wait for a git at work in the person's folder, and for its locks."""
_NOTE = "airlock-push"


class Push(NamedTuple):
    """A push that is under way.

    Attributes:
        path: the person's folder.
        ref: the full name of the branch.
        at: the commit that the branch is at.
        commit: what is pushed.
    """

    path: str
    ref: str
    at: str
    commit: str


class Leftover(Enum):
    """What was found of a push that is written down."""

    NOTHING = "nothing"
    UNDONE = "undone"
    LOCKED = "locked"
    """There are locks that may be those of a git that lives: nothing was touched."""


@contextmanager
def alone(mirror: Path) -> Iterator[None]:
    """While this is held, no other process of ours pushes into the repository of this mirror.

    Raises:
        GitFailed: another one has held it for a minute.
    """
    end = time.monotonic() + ALONE_S
    with (mirror / "airlock-pushing").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise GitFailed(
                        f"Another push into the repository of {mirror.name} has not ended for {ALONE_S:g} s. "
                        "The step tries again; if it stays so, end the git that hangs there."
                    ) from None
            time.sleep(0.05)
        yield


def write_down(mirror: Path, push: Push) -> None:
    """Say that a push begins. The caller is ``alone``."""
    draft = mirror / f"{_NOTE}.new"
    draft.write_text(json.dumps(push))
    os.replace(draft, mirror / _NOTE)


def strike_out(mirror: Path) -> None:
    """Git has answered, and nothing is left of the push. The caller is ``alone``."""
    (mirror / _NOTE).unlink(missing_ok=True)


def undo(mirror: Path) -> Leftover:
    """Undo what is left of the push that is written down, and strike it out; but not while its locks may be a living git's.

    The caller is ``alone``, so that no push of ours is under way. Only what is, byte for byte, the pushed commit's is taken back; if any
    path of the push holds anything else, it may be a person's, and nothing is touched.
    """
    note = mirror / _NOTE
    try:
        push, since = Push(*json.loads(note.read_text())), note.stat().st_mtime_ns
    except FileNotFoundError:
        return Leftover.NOTHING
    except (ValueError, TypeError):  # written while the machine died
        strike_out(mirror)
        return Leftover.NOTHING
    try:
        place = _place(push.path, push.ref)
        had_locks = any(lock.exists() for lock in place.locks)
        if not _clear(place, since):
            return Leftover.LOCKED
        undone = _take_back(mirror, place.tree, push) if place.tree is not None else False
    except GitFailed:  # the push to come tells what is wrong with the repository
        had_locks = undone = False
    strike_out(mirror)
    return Leftover.UNDONE if undone or had_locks else Leftover.NOTHING


def locks_of(path: str, ref: str) -> list[str]:
    """List the locks on a branch, and on the work tree that has it checked out: of a git that runs, or of one that was killed."""
    try:
        return [str(lock) for lock in _place(path, ref).locks if lock.exists()]
    except GitFailed:
        return []


# -- locks ---------------------------------------------------------------------------------------------------------------


class _Mark(NamedTuple):
    """Changes when a lock is another one, or is written."""

    inode: int
    changed_ns: int
    size: int


class _Place(NamedTuple):
    """Where a branch lies: the work tree that has it checked out, and what git locks to move both."""

    tree: Path | None
    locks: tuple[Path, ...]
    folders: tuple[Path, ...]  # a git at work on it is in one of these


def _place(path: str, ref: str) -> _Place:
    tree = None
    folder = ""
    for line in git.text(["-C", path, "worktree", "list", "--porcelain", "-z"]).split("\0"):
        folder = line.removeprefix("worktree ") if line.startswith("worktree ") else folder
        if line == f"branch {ref}":
            tree = Path(folder)
    names = (ref, "index", "HEAD") if tree is not None else (ref,)
    asked = [word for name in names for word in ("--git-path", f"{name}.lock")]
    said = git.text(["-C", str(tree or path), "rev-parse", "--path-format=absolute", "--git-common-dir", *asked]).splitlines()
    common, *locks = (Path(line) for line in said)
    return _Place(tree, tuple(locks), tuple(each.resolve() for each in (Path(path), common, tree or common)))


def _clear(place: _Place, since: int) -> bool:
    """Wait for a git that is at work there (ours may have outlived its step), and remove the locks that appeared after the push began and
    were left behind; False if any stays."""
    end = time.monotonic() + PATIENCE_S
    seen: dict[Path, tuple[_Mark, float]] = {}
    while (locked := any(lock.exists() for lock in place.locks)) or _git_at_work(place.folders):
        now = time.monotonic()
        if now > end:
            break
        standing = _standing(place, since)
        seen = {lock: seen[lock] if lock in seen and seen[lock][0] == mark else (mark, now) for lock, mark in standing.items()}
        still = [lock for lock, (_, first) in seen.items() if now - first >= STILL_S]
        if still and not _git_at_work(place.folders):
            for lock in still:
                lock.unlink(missing_ok=True)
        time.sleep(0.1)
    return not locked


def _standing(place: _Place, since: int) -> dict[Path, _Mark]:
    found = {}
    for lock in place.locks:
        try:
            stat = lock.stat()
        except FileNotFoundError:
            continue
        if stat.st_ctime_ns >= since:
            found[lock] = _Mark(stat.st_ino, stat.st_ctime_ns, stat.st_size)
    return found


def _git_at_work(folders: tuple[Path, ...]) -> bool:
    """Is any git there, or one of which it cannot be seen where it is?"""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if not (process / "comm").read_text().startswith("git"):
                continue
            where = Path(os.readlink(process / "cwd"))
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        except PermissionError:
            return True
        if any(where.is_relative_to(folder) for folder in folders):
            return True
    return False


# -- files ---------------------------------------------------------------------------------------------------------------


def _take_back(mirror: Path, tree: Path, push: Push) -> bool:
    """True if files of the push were there, on a branch that has not moved, and are as before now."""
    if _in(tree, "rev-parse", "--verify", "HEAD") != push.at:
        return False
    paths = git.text(["diff-tree", "-r", "-z", "--no-renames", "--name-only", push.at, push.commit], mirror).split("\0")
    ours = _half_done(tree, {path for path in paths if path}, push)
    if not ours:
        return False
    _in(tree, "add", "--all", "--", *ours)
    _in(tree, "restore", f"--source={push.at}", "--staged", "--worktree", "--", *ours)
    return True


def _half_done(tree: Path, paths: set[str], push: Push) -> list[str]:
    """The paths of a push that are as the pushed commit has them and not as the branch has them; none if any is neither."""
    files_at, files_new = _unlike(tree, push.at), _unlike(tree, push.commit)
    staged_at, staged_new = _staged_unlike(tree, push.at), _staged_unlike(tree, push.commit)
    if paths & files_at & files_new or paths & staged_at & staged_new:
        return []
    return sorted(paths & (files_at | staged_at))


def _unlike(tree: Path, commit: str) -> set[str]:
    """Which files of the work tree differ from a commit, new ones included; by an index of its own: nothing of the person's changes."""
    with tempfile.TemporaryDirectory(prefix="airlock-index-") as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        _in(tree, "read-tree", commit, environment=own)
        asked = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all"]
        entries = [entry for entry in _in(tree, *asked, environment=own).split("\0") if entry]
        return {entry[3:] for entry in entries if entry[1] != " "}


def _staged_unlike(tree: Path, commit: str) -> set[str]:
    return {path for path in _in(tree, "diff-index", "--cached", "--name-only", "-z", commit).split("\0") if path}


def _in(tree: Path, *args: str, environment: dict[str, str] | None = None) -> str:
    return git.text(["-C", str(tree), *args], how=git.How(environment or {}))
