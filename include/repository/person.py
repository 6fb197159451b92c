"""Pushes into the person's own repository: with a lease, and into a checked-out branch only while its work tree is clean."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

from include.errors import GitFailed
from include.repository import git

# What git itself offers for this: the branch and its work tree move together, or neither does when anything is not committed.
_RECEIVE = "--receive-pack=git -c receive.denyCurrentBranch=updateInstead -c core.fsmonitor=false receive-pack"
_WORDS = {
    "stale info": "it has moved meanwhile",
    "unstaged changes": "it is checked out, and its work tree has uncommitted changes",
    "staged changes": "it is checked out, and its index has uncommitted changes",
    "Could not update working tree": "it is checked out, and files that are not committed stand in the way",
    "hook declined": "a hook of the repository refused the push",
}


def push(mirror: Path, path: str, commit: str, ref: str, expected: str) -> str | None:
    """Move a branch of the person's repository, if it still is where it was seen.

    Args:
        path: the person's folder.
        ref: the full name of the branch.
        expected: the commit that it must be at.

    Returns:
        None, or why the person's repository refused, in a few words; nothing has changed then.

    Raises:
        GitFailed: the repository cannot be reached at all.
    """
    asked = [
        "push",
        "--porcelain",
        "--no-verify",
        f"--force-with-lease={ref}:{expected}",
        _RECEIVE,
        "--end-of-options",
        path,
        f"{commit}:{ref}",
    ]
    try:
        git.run(asked, mirror, protocol="file")
    except GitFailed as error:
        said = git.last_output(error)
        if "\t" + f"{commit}:{ref}\t" not in said:
            raise
        return next((words for sign, words in _WORDS.items() if sign in said), said.split(f"{commit}:{ref}\t", 1)[1].splitlines()[0])
    return None


def keep(mirror: Path, path: str, commit: str, ref: str) -> None:
    """Put a commit on a branch that is ours (``airlock/...``) in the person's repository, wherever that branch was before.

    Raises:
        GitFailed: the repository does not take it.
    """
    git.run(["push", "--quiet", "--no-verify", _RECEIVE, "--end-of-options", path, f"+{commit}:{ref}"], mirror, protocol="file")


class _Tree(NamedTuple):
    """A work tree that has the branch checked out."""

    folder: Path
    locks: tuple[Path, ...]  # of its index, its HEAD and the branch

    def git(self, *args: str, environment: dict[str, str] | None = None) -> str:
        return git.text(["-C", str(self.folder), *args], environment=environment)


def take_back(mirror: Path, path: str, ref: str, at: str, commit: str) -> bool:
    """Undo a push that was killed while git brought a checked-out work tree forward: files of ``commit``, on a branch still at ``at``.

    Only what is, byte for byte, the pushed commit's is taken back. If any path of the push holds anything else, it may be a person's:
    nothing is touched.

    Args:
        mirror: that holds both commits.
        path: the person's folder.
        ref: the full name of the branch.
        at: the commit that the branch is at.
        commit: what was pushed.

    Returns:
        True if there was such a push and it is undone: pushing again may succeed now.
    """
    try:
        tree = _checked_out(path, ref)
        if tree is None or any(lock.exists() for lock in tree.locks) or tree.git("rev-parse", "--verify", "HEAD") != at:
            return False
        paths = git.text(["diff-tree", "-r", "-z", "--no-renames", "--name-only", at, commit], mirror).split("\0")
        ours = _half_done(tree, {path for path in paths if path}, at, commit)
        if not ours:
            return False
        tree.git("add", "--all", "--", *ours)
        tree.git("restore", f"--source={at}", "--staged", "--worktree", "--", *ours)
    except GitFailed:
        return False
    return True


def locks_of(path: str, ref: str) -> list[str]:
    """The locks on a checked-out branch and on its work tree's index: of a git that runs, or of one that was killed."""
    try:
        tree = _checked_out(path, ref)
    except GitFailed:
        return []
    return [str(lock) for lock in tree.locks if lock.exists()] if tree is not None else []


def _checked_out(path: str, ref: str) -> _Tree | None:
    folder = ""
    for line in git.text(["-C", path, "worktree", "list", "--porcelain", "-z"]).split("\0"):
        folder = line.removeprefix("worktree ") if line.startswith("worktree ") else folder
        if line == f"branch {ref}":
            asked = [word for name in ("index", "HEAD", ref) for word in ("--git-path", f"{name}.lock")]
            said = git.text(["-C", folder, "rev-parse", "--path-format=absolute", *asked])
            return _Tree(Path(folder), tuple(Path(lock) for lock in said.splitlines()))
    return None


def _half_done(tree: _Tree, paths: set[str], at: str, commit: str) -> list[str]:
    """The paths of a push that are as the pushed commit has them and not as the branch has them; none if any is neither."""
    files_at, files_new = _unlike(tree, at), _unlike(tree, commit)
    staged_at, staged_new = _staged_unlike(tree, at), _staged_unlike(tree, commit)
    if paths & files_at & files_new or paths & staged_at & staged_new:
        return []
    return sorted(paths & (files_at | staged_at))


def _unlike(tree: _Tree, commit: str) -> set[str]:
    """Which files of the work tree differ from a commit, new ones included; by an index of its own: nothing of the person's changes."""
    with tempfile.TemporaryDirectory(prefix="airlock-index-") as folder:
        own = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
        tree.git("read-tree", commit, environment=own)
        asked = ["status", "--porcelain=v1", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all"]
        entries = [entry for entry in tree.git(*asked, environment=own).split("\0") if entry]
        return {entry[3:] for entry in entries if entry[1] != " "}


def _staged_unlike(tree: _Tree, commit: str) -> set[str]:
    return {path for path in tree.git("diff-index", "--cached", "--name-only", "-z", commit).split("\0") if path}
