"""git inside the sandbox: the code comes in as a bundle, and the work goes out as one.

git's folder lies beside the work tree, not in it: what tests write can become a file, never a hook, a filter or a configuration. Each call
is sealed all the same; what belongs together shares one seal, which costs more than git does.
"""

from __future__ import annotations

import os
from pathlib import Path

from include.worker import child
from include.worker.child import Bounds
from include.worker.errors import GitRefused
from include.worker.paths import Paths
from include.worker.seal import DEVICES, Policy
from include.worker.sequence import Command

BASE, BRANCH = "airlock-base", "task"
_HANDIN_BEING_MADE = "handin.part"
_KEEP_BYTES = 16 * 1024 * 1024
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
            GitRefused: the bundle is missing or broken.
        """
        paths = self._paths
        paths.incoming.mkdir(exist_ok=True)
        where = [f"--separate-git-dir={paths.git}", str(paths.bundle), str(paths.repo)]
        clone = self._git("clone", "--quiet", "--no-tags", "--template=", f"--branch={BASE}", *where, cloned=False)
        self._all(clone, *([self._git("checkout", "--quiet", "-b", branch)] if branch != BASE else []))

    def lay_out(self, commit: str, folder: Path) -> None:
        """Write the files of an earlier commit into a folder of their own.

        Raises:
            GitRefused: the bundle does not hold that commit.
        """
        folder.mkdir()
        index = [self._git("read-tree", commit), self._git("checkout-index", "--all", "--force")]
        here = [each._replace(words=[*each.words[:2], f"--work-tree={folder}", *each.words[3:]], cwd=str(folder)) for each in index]
        self._all(*here)

    def commit(self, paths: list[str], message: str) -> str | None:
        """Commit exactly these paths as they are now (one that is gone is a deletion); the commit's id, or None if nothing differs.

        Raises:
            GitRefused: git would not stage or commit; nothing was committed.
        """
        on_branch = self._git("symbolic-ref", "--quiet", "HEAD", only=f"refs/heads/{BRANCH}")
        start = [on_branch, self._git("reset", "--quiet")]
        gone = [path for path in paths if not os.path.lexists(self._paths.repo / path)]
        if gone:  # those that are neither there nor known to git are left out: ``git add`` fails on them, and there is nothing to do
            ran = self._all(*start, self._git("ls-files", "-z", "--", *gone))
            self._require_branch(ran)
            known = set(ran[-1].split("\0"))
            start, paths = [], [path for path in paths if path not in gone or path in known]
        listed = "\0".join(paths)
        add = [self._git("add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul", stdin=listed)] if paths else []
        differs = self._git("diff", "--cached", "--name-only", "--no-ext-diff", unless="")
        commit = self._git("commit", "--quiet", "--no-verify", "--cleanup=whitespace", "--file=-", stdin=message)
        commands = [*start, *add, differs, commit, self._git("rev-parse", "--verify", "HEAD")]
        ran = self._all(*commands)
        if start:
            self._require_branch(ran)
        return ran[-1] if len(ran) == len(commands) else None

    def _require_branch(self, ran: list[str]) -> None:
        if ran[0] != f"refs/heads/{BRANCH}":
            raise GitRefused(f"the work tree is on {ran[0]}, not on this attempt's branch {BRANCH}; nothing was committed")

    def tip(self) -> str:
        """Find the commit that the branch is at, 40 hex digits."""
        return self._call("rev-parse", "--verify", "HEAD")

    def uncommitted(self, paths: list[str]) -> list[str]:
        """List which of these paths differ from the last commit."""
        changed = self._call("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--ignored=matching")
        return sorted({entry[3:] for entry in changed.split("\0")} & set(paths))

    def hand_in(self) -> str | None:
        """Write the hand-in and return the tip, or None (and there is no file) when nothing was committed.

        Raises:
            GitRefused: the bundle could not be made.
        """
        some = self._git("rev-list", "--count", f"{BASE}..{BRANCH}", unless="0")
        ran = self._all(some, self._bundle(), self._git("rev-parse", "--verify", "HEAD"))
        if len(ran) == 1:
            return None
        os.replace(self._part, self._paths.handin)
        return ran[-1]

    def keep(self) -> None:
        """Write everything after the base as a bundle to the hand-in file: after each commit, so that a lost attempt leaves it behind.

        The file is replaced whole: whatever kills the sandbox, the warden finds the last whole one.

        Raises:
            GitRefused: the bundle could not be made; the file is as it was.
        """
        self._all(self._bundle())
        os.replace(self._part, self._paths.handin)

    @property
    def _part(self) -> Path:
        return self._paths.workspace / _HANDIN_BEING_MADE

    def _bundle(self) -> Command:
        return self._git("bundle", "create", "--quiet", str(self._part), f"{BASE}..{BRANCH}")

    def _call(self, *arguments: str) -> str:
        return self._all(self._git(*arguments))[0]

    def _git(self, *arguments: str, stdin: str = "", only: str | None = None, unless: str | None = None, cloned: bool = True) -> Command:
        paths = self._paths
        where = [f"--git-dir={paths.git}", f"--work-tree={paths.repo}"] if cloned else []
        words = ["git", *where, *(word for setting in _HARDENED for word in ("-c", setting)), *arguments]
        return Command(words, str(paths.repo if cloned else paths.workspace), stdin, only, unless)

    def _all(self, *commands: Command) -> list[str]:
        """Run them in one seal; returns what each printed, fewer than were asked for if one of them ended the sequence."""
        paths = self._paths
        policy = Policy(read=(str(paths.bundle),), write=(str(paths.workspace), *DEVICES), cpu_s=300)
        bounds = Bounds(policy, timeout_s=300, cwd=paths.workspace, environment=_ENVIRONMENT, keep=_KEEP_BYTES)
        finished, ran = child.run_all(paths, bounds, list(commands))
        if not ran:
            raise GitRefused(f"git did not end by itself ({finished.exit_code}): {finished.err.decode(errors='replace').strip()[-2000:]}")
        if ran[-1].code != 0:
            verb = next(word for word in commands[len(ran) - 1].words[1:] if not word.startswith("-") and word not in _HARDENED)
            raise GitRefused(f"git {verb} ended with {ran[-1].code}: {ran[-1].err.strip()[-2000:]}")
        return [each.out for each in ran]
