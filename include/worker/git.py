"""git inside the sandbox: the code comes in as a bundle, and the work goes out as one.

git's folder lies beside the work tree, not in it: what tests write can become a file, never a hook, a filter or a configuration. Each call
is sealed all the same.
"""

from __future__ import annotations

import os

from include.worker import child
from include.worker.errors import GitFailed
from include.worker.paths import Paths
from include.worker.seal import DEVICES, Policy

BASE, BRANCH = "airlock-base", "task"
_HANDIN_BEING_MADE = "handin.part"
_HARDENED = (
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.fsmonitor=false",
    "core.protectNTFS=true",
    "core.protectHFS=true",
    "commit.gpgSign=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "advice.detachedHead=false",
)
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "file",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_AUTHOR_NAME": "Airlock worker",
    "GIT_AUTHOR_EMAIL": "worker@airlock.invalid",
    "GIT_COMMITTER_NAME": "Airlock worker",
    "GIT_COMMITTER_EMAIL": "worker@airlock.invalid",
}


class Repository:
    """The clone of this attempt."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def clone(self, branch: str) -> None:
        """Make the work tree from the base bundle, on ``branch``.

        Raises:
            GitFailed: the bundle is missing or broken.
        """
        paths = self._paths
        paths.incoming.mkdir(exist_ok=True)
        where = [f"--separate-git-dir={paths.git}", str(paths.bundle), str(paths.repo)]
        self._call("clone", "--quiet", "--no-tags", "--template=", f"--branch={BASE}", *where, cloned=False)
        if branch != BASE:
            self._call("checkout", "--quiet", "-b", branch)

    def commit(self, paths: list[str], message: str) -> str | None:
        """Commit exactly these paths as they are now (one that is gone is a deletion); the commit's id, or None if nothing differs.

        Raises:
            GitFailed: git would not stage or commit; nothing was committed.
        """
        if (branch := self._call("symbolic-ref", "--quiet", "HEAD")) != f"refs/heads/{BRANCH}":
            raise GitFailed(f"the work tree is on {branch}, not on this attempt's branch {BRANCH}; nothing was committed")
        self._call("reset", "--quiet")
        if listed := self._worth_staging(paths):
            self._call("add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul", stdin="\0".join(listed))
        if not self._call("diff", "--cached", "--name-only", "--no-ext-diff"):
            return None
        self._call("commit", "--quiet", "--no-verify", "--cleanup=whitespace", "--file=-", stdin=message)
        return self.tip()

    def tip(self) -> str:
        """The commit that the branch is at, 40 hex digits."""
        return self._call("rev-parse", "--verify", "HEAD")

    def uncommitted(self, paths: list[str]) -> list[str]:
        """Which of these paths differ from the last commit."""
        changed = self._call("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignored=matching")
        return sorted({entry[3:] for entry in changed.split("\0")} & set(paths))

    def hand_in(self) -> str | None:
        """Write the hand-in and return the tip, or None (and there is no file) when nothing was committed.

        Raises:
            GitFailed: the bundle could not be made.
        """
        if self._call("rev-list", "--count", f"{BASE}..{BRANCH}") == "0":
            return None
        self.keep()
        return self.tip()

    def keep(self) -> None:
        """Write everything after the base as a bundle to the hand-in file: after each commit, so that a lost attempt leaves it behind.

        The file is replaced whole: whatever kills the sandbox, the warden finds the last whole one.

        Raises:
            GitFailed: the bundle could not be made; the file is as it was.
        """
        part = self._paths.workspace / _HANDIN_BEING_MADE
        self._call("bundle", "create", "--quiet", str(part), f"{BASE}..{BRANCH}")
        os.replace(part, self._paths.handin)

    def _worth_staging(self, paths: list[str]) -> list[str]:
        """Without those that are neither there nor known to git: ``git add`` fails on them, and there is nothing to do."""
        gone = [path for path in paths if not os.path.lexists(self._paths.repo / path)]
        known = set(self._call("ls-files", "-z", "--", *gone).split("\0")) if gone else set()
        return [path for path in paths if path not in gone or path in known]

    def _call(self, *arguments: str, stdin: str = "", cloned: bool = True) -> str:
        paths = self._paths
        command = ["git", *(word for setting in _HARDENED for word in ("-c", setting)), *arguments]
        where = {"GIT_DIR": str(paths.git), "GIT_WORK_TREE": str(paths.repo)} if cloned else {}
        finished = child.run(
            paths,
            Policy(read=(str(paths.bundle),), write=(str(paths.workspace), *DEVICES), cpu_s=300),
            command,
            timeout_s=300,
            cwd=paths.repo if cloned else paths.workspace,
            stdin=stdin.encode("utf-8"),
            environment=_ENVIRONMENT | where,
            keep=4 * 1024 * 1024,
        )
        if finished.exit_code != 0:
            said = finished.err.decode(errors="replace").strip()[-2000:]
            raise GitFailed(f"git {arguments[0]} ended with {finished.exit_code}: {said}")
        return finished.out.decode("utf-8", errors="surrogateescape").rstrip("\n")
