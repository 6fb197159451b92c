"""Commits and trees of a mirror: look, compare, merge in memory, move a ref by compare-and-swap. No work tree anywhere."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Mapping
from pathlib import Path

from include import inert
from include.errors import GitFailed
from include.repository import git
from include.repository.models import Candidate, FileChange, MergeConflict
from include.repository.rules import numstat, patches, raw_changes

ZERO = "0" * 40
MAX_PATCH_CHARS = 20_000
"""Longest patch of one file that is kept."""
MAX_DIFF_BYTES = 8 * 1024 * 1024
"""Beyond this a diff is told in figures only."""
_DIFF = ("diff-tree", "-r", "-z", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--end-of-options")


def resolve(mirror: Path, name: str) -> str:
    """Find the commit that a ref or an id names.

    Raises:
        GitFailed: there is none.
    """
    return git.text(["rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"], mirror)


def find(mirror: Path, ref: str) -> str | None:
    """Find the commit that a ref names, or None: there is no such ref."""
    code, out = git.finish(
        ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"], mirror, git.How(allowed=(0, 1, 128))
    )
    return out.decode().strip() if code == 0 else None


def tree_of(mirror: Path, commit: str) -> str:
    """Find the tree of a commit."""
    return git.text(["rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}"], mirror)


def first_parent(mirror: Path, commit: str) -> str | None:
    """Find the first parent of a commit; None for a root."""
    return find(mirror, f"{commit}^1")


def committed_at(mirror: Path, commit: str) -> int:
    """Read the committer's date of a commit, seconds since 1970."""
    return int(git.text(["show", "-s", "--format=%ct", "--end-of-options", commit], mirror))


def files(mirror: Path, commit: str) -> list[str]:
    """List all paths of a commit."""
    listed = git.text(["ls-tree", "-r", "-z", "--name-only", "--full-tree", commit], mirror)
    return [path for path in listed.split("\0") if path]


def is_ancestor(mirror: Path, older: str, newer: str) -> bool:
    """Say whether ``newer`` holds all that ``older`` holds."""
    return git.finish(["merge-base", "--is-ancestor", older, newer], mirror, git.How(allowed=(0, 1)))[0] == 0


def diff(mirror: Path, before: str, after: str) -> list[FileChange]:
    """Compare two commits path by path; a rename is a deletion and a creation."""
    counts = numstat(git.run([*_with("--numstat"), before, after], mirror))
    body = git.run([*_with("--patch", "--unified=3"), before, after], mirror)
    shown = patches(body, MAX_PATCH_CHARS) if len(body) <= MAX_DIFF_BYTES else []
    changes = raw_changes(git.run([*_with("--raw"), before, after], mirror))
    words = shown if len(shown) == len(changes) else [""] * len(changes)
    return [
        FileChange(path=change.path, action=change.action, additions=counts[change.path][0], deletions=counts[change.path][1], patch=patch)
        for change, patch in zip(changes, words, strict=True)
    ]


def _with(*options: str) -> list[str]:
    return [_DIFF[0], *options, *_DIFF[1:]]


def merge_in_memory(
    mirror: Path, ours: str, theirs: str, message: str, trailers: Mapping[str, str], when: int
) -> Candidate | MergeConflict:
    """Merge two commits without a work tree; the same arguments always give the same commit.

    Args:
        ours: first parent: where the target ref is.
        theirs: second parent. If ``ours`` holds it already, ``ours`` itself is the candidate.
        message: the subject, and after a line break what follows it; made inert.
        trailers: written at the end, ``Name: value``; nothing in the message can pass for one.
        when: the commit's date, seconds since 1970.
    """
    if is_ancestor(mirror, theirs, ours):
        return Candidate(ours, tree_of(mirror, ours), (ours,))
    asked = ["merge-tree", "--write-tree", "-z", "--name-only", "--messages", ours, theirs]
    code, out = git.finish(asked, mirror, git.How(allowed=(0, 1)))
    records = out.decode("utf-8", errors="replace").split("\0")
    if code == 1:
        return _conflict(records)
    subject, _, body = message.partition("\n")
    full = inert.commit_message(subject, body, dict(trailers))
    dates = {"GIT_AUTHOR_DATE": f"{when} +0000", "GIT_COMMITTER_DATE": f"{when} +0000"}
    asked = ["commit-tree", records[0], "-p", ours, "-p", theirs]
    commit = git.run(asked, mirror, git.How(git.IDENTITY | dates), stdin=full.encode("utf-8", errors="replace"))
    return Candidate(commit.decode().strip(), records[0], (ours, theirs))


def _conflict(records: list[str]) -> MergeConflict:
    """Records: tree, paths, an empty one; then per message a count, that many paths, a type, a text."""
    end = records.index("", 1)
    paths, rest, messages = records[1:end], records[end + 1 :], []
    while rest and rest[0].isdigit():
        count = int(rest[0])
        kind, words = rest[1 + count], rest[2 + count]
        if kind.startswith("CONFLICT"):
            messages.append(words.strip())
        rest = rest[3 + count :]
    return MergeConflict(tuple(dict.fromkeys(paths)), tuple(messages))


def move_ref(mirror: Path, ref: str, new: str, old: str) -> bool:
    """Move a ref by compare-and-swap.

    Args:
        old: where it must be; ``ZERO``: it must not exist.

    Returns:
        False if it is somewhere else; nothing has changed then.

    Raises:
        GitFailed: the ref cannot be written, for instance because a live process holds its lock.
    """
    for last in (False, True):
        try:
            git.run(["update-ref", "--no-deref", ref, new, old], mirror)
            return True
        except GitFailed as error:
            if (find(mirror, ref) or ZERO) != old:
                return False
            if last or not clear_stale_locks(mirror, ref):
                raise GitFailed(f"{ref} of {mirror.name} could not be moved: {error}") from error
    raise AssertionError


def clear_stale_locks(mirror: Path, ref: str) -> bool:
    """Remove the locks that a killed git left on a ref. Git has waited for them in vain; a git that lives holds one for milliseconds.

    Returns:
        True if one was removed.
    """
    removed = False
    with (mirror / "airlock-cleaning").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # one cleaner at a time: none removes the fresh lock of who came after another's cleaning
        for lock in (mirror / f"{ref}.lock", mirror / "HEAD.lock", mirror / "packed-refs.lock"):
            try:
                old = time.time() - lock.stat().st_mtime > git.LOCK_PATIENCE_MS / 1000
            except FileNotFoundError:
                continue
            if old:
                os.unlink(lock)
                removed = True
    return removed


def set_ref(mirror: Path, ref: str, commit: str) -> None:
    """Put a ref of ours that only one process writes (a candidate) where it should be.

    Raises:
        GitFailed: it could not be written.
    """
    while (old := find(mirror, ref) or ZERO) != commit and not move_ref(mirror, ref, commit, old):
        pass
