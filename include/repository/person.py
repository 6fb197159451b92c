"""Pushes into the person's own repository: with a lease, and into a checked-out branch only while its work tree is clean."""

from __future__ import annotations

from pathlib import Path

from include.errors import GitFailed
from include.repository import git, killed_push
from include.repository.killed_push import Left, Push

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
    """Move a branch of the person's repository, if it still is where it was seen; once more, if a push that was killed stood in the way.

    Args:
        path: the person's folder.
        ref: the full name of the branch.
        expected: the commit that it must be at.

    Returns:
        None, or why the person's repository refused, in a few words; nothing has changed then.

    Raises:
        GitFailed: the repository cannot be reached at all, or another push into it does not end.
    """
    asked = Push(path, ref, expected, commit)
    refusal: str | None = "another git is at work in it"
    with killed_push.alone(mirror):
        for _ in range(2):
            if killed_push.undo(mirror) is Left.LOCKED:
                break
            if (refusal := _push(mirror, asked)) is None:
                killed_push.strike_out(mirror)
                return None
            if killed_push.undo(mirror) is not Left.UNDONE:
                break
    locks = killed_push.locks_of(path, ref)
    return f"{' and '.join(locks)} are there, of a git that runs or was killed (if none runs, remove them)" if locks else refusal


def mend(mirror: Path) -> None:
    """Undo what a push left that was killed. To be called before the repository is looked at.

    Raises:
        GitFailed: a push into it does not end.
    """
    with killed_push.alone(mirror):
        killed_push.undo(mirror)


def _push(mirror: Path, push: Push) -> str | None:
    killed_push.write_down(mirror, push)
    refspec = f"{push.commit}:{push.ref}"
    lease = f"--force-with-lease={push.ref}:{push.at}"
    try:
        git.run(["push", "--porcelain", "--no-verify", lease, _RECEIVE, "--end-of-options", push.path, refspec], mirror, protocol="file")
    except GitFailed as error:
        said = git.last_output(error)
        if f"\t{refspec}\t" not in said:
            raise
        return next((words for sign, words in _WORDS.items() if sign in said), said.split(f"{refspec}\t", 1)[1].splitlines()[0])
    return None


def keep(mirror: Path, path: str, commit: str, ref: str) -> None:
    """Put a commit on a branch that is ours (``airlock/...``) in the person's repository, wherever that branch was before.

    Raises:
        GitFailed: the repository does not take it.
    """
    git.run(["push", "--quiet", "--no-verify", _RECEIVE, "--end-of-options", path, f"+{commit}:{ref}"], mirror, protocol="file")
