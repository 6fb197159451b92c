"""Pushes into the person's own repository: with a lease, and into a checked-out branch only while its work tree is clean."""

from __future__ import annotations

from pathlib import Path

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
