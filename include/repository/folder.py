"""A repository that lives in a folder of this machine: a person's own.

It is pushed to with a lease, and into a checked-out branch only while its work tree is clean.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from include.errors import BadInput, GitFailed
from include.repository import git, killed_push, trees
from include.repository.killed_push import Leftover, Push

# What git itself offers for this: the branch and its work tree move together, or neither does when anything is not committed.
_RECEIVE = "--receive-pack=git -c receive.denyCurrentBranch=updateInstead -c core.fsmonitor=false receive-pack"
_WORDS = {
    "stale info": "it has moved meanwhile",
    "unstaged changes": "it is checked out, and its work tree has uncommitted changes",
    "staged changes": "it is checked out, and its index has uncommitted changes",
    "Could not update working tree": "it is checked out, and files that are not committed stand in the way",
    "hook declined": "a hook of the repository refused the push",
}


class Folder:
    """A remote that is a folder (``remotes.Remote``).

    Args:
        path: of the person's repository, absolute.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def heads(self) -> dict[str, str]:
        """Ask for all branches: name to commit.

        Raises:
            BadInput: not a git repository that can be read.
        """
        path, remedy = self._path, "Name the folder of a git repository that you may read."
        if not os.path.isabs(path) or not os.path.isdir(path):
            raise BadInput("repository", f"{path} is not a folder", remedy)
        try:
            listed = git.text(["ls-remote", "--heads", "--end-of-options", path], how=git.BY_FILE)
        except GitFailed as error:
            if "dubious ownership" in str(error):
                own = "Run Airlock as its owner, or use a clone of your own."
                raise BadInput("repository", f"{path} belongs to another user", own) from error
            raise BadInput("repository", f"{path} is not a git repository", remedy) from error
        rows = (line.split("\t", 1) for line in listed.splitlines())
        return {ref.removeprefix("refs/heads/"): commit for commit, ref in rows}

    def fetch(self, mirror: Path, branch: str) -> str:
        """Bring one branch into the mirror, as ``refs/base/<branch>``; nothing else is fetched.

        Returns:
            The commit that the branch is at.

        Raises:
            BadInput: the path is no git repository, the repository is empty or shallow, or it has no such branch.
        """
        self._require(branch)
        wanted = f"+refs/heads/{branch}:refs/base/{branch}"
        options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance"]
        fetch = ["fetch", *options, "--end-of-options", self._path, wanted]
        try:
            git.run(fetch, mirror, git.BY_FILE)
        except GitFailed:
            if not trees.clear_stale_locks(mirror, f"refs/base/{branch}"):
                raise
            git.run(fetch, mirror, git.BY_FILE)
        return git.text(["rev-parse", "--verify", "--end-of-options", f"refs/base/{branch}^{{commit}}"], mirror)

    def _require(self, branch: str) -> None:
        path, heads = self._path, self.heads()
        if not heads:
            raise BadInput("repository", f"{path} has no commits", "Commit something first, then submit again.")
        if branch not in heads:
            close = difflib.get_close_matches(branch, heads, n=1)
            remedy = f"Did you mean {close[0]!r}?" if close else f"Known branches: {', '.join(sorted(heads)[:10])}."
            raise BadInput("base", f"{branch!r} is not a branch of {path}", remedy)
        if git.text(["-C", path, "rev-parse", "--is-shallow-repository"]) == "true":
            raise BadInput("repository", f"{path} is a shallow clone", "Run `git fetch --unshallow` in it, then submit again.")

    def push(self, mirror: Path, commit: str, ref: str, expected: str) -> str | None:
        """Move a branch, if it still is where it was seen; once more, if a push that was killed stood in the way.

        Args:
            ref: the full name of the branch.
            expected: the commit that it must be at.

        Returns:
            None, or why the person's repository refused, in a few words; nothing has changed then.

        Raises:
            GitFailed: the repository cannot be reached at all, or another push into it does not end.
        """
        asked = Push(self._path, ref, expected, commit)
        refusal: str | None = "another git is at work in it"
        with killed_push.alone(mirror):
            for _ in range(2):
                if killed_push.undo(mirror) is Leftover.LOCKED:
                    break
                if (refusal := _push(mirror, asked)) is None:
                    killed_push.strike_out(mirror)
                    return None
                if killed_push.undo(mirror) is not Leftover.UNDONE:
                    break
        locks = killed_push.locks_of(self._path, ref)
        return f"{' and '.join(locks)} are there, of a git that runs or was killed (if none runs, remove them)" if locks else refusal

    def mend(self, mirror: Path) -> None:
        """Undo what a push left that was killed. To be called before the repository is looked at.

        Raises:
            GitFailed: a push into it does not end.
        """
        with killed_push.alone(mirror):
            killed_push.undo(mirror)

    def keep(self, mirror: Path, commit: str, ref: str) -> None:
        """Put a commit on a branch that is ours (``airlock/...``), wherever that branch was before.

        Raises:
            GitFailed: the repository does not take it.
        """
        git.run(["push", "--quiet", "--no-verify", _RECEIVE, "--end-of-options", self._path, f"+{commit}:{ref}"], mirror, git.BY_FILE)


def _push(mirror: Path, push: Push) -> str | None:
    killed_push.write_down(mirror, push)
    refspec = f"{push.commit}:{push.ref}"
    lease = f"--force-with-lease={push.ref}:{push.at}"
    try:
        git.run(["push", "--porcelain", "--no-verify", lease, _RECEIVE, "--end-of-options", push.path, refspec], mirror, git.BY_FILE)
    except GitFailed as error:
        said = git.last_output(error)
        if f"\t{refspec}\t" not in said:
            raise
        return next((words for sign, words in _WORDS.items() if sign in said), said.split(f"{refspec}\t", 1)[1].splitlines()[0])
    return None
