"""The mirror: our bare copy of a person's repository. Only here is anything read from the person's own folder."""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from pathlib import Path

from include.errors import BadInput, GitFailed
from include.repository import git, trees
from include.settings import Settings


def path_of(settings: Settings, repository: str) -> Path:
    """Where the mirror of a registered repository lies."""
    return settings.mirrors_dir / f"{repository}.git"


def ensure_mirror(settings: Settings, repository: str, path: str) -> Path:
    """Make the mirror, empty, unless it is there.

    Args:
        repository: its registered name.
        path: the person's folder, absolute.

    Returns:
        The mirror's folder.

    Raises:
        BadInput: ``path`` is not a git repository that can be read.
    """
    mirror = path_of(settings, repository)
    if mirror.exists():
        return mirror
    _heads(path)
    settings.mirrors_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".making-", dir=settings.mirrors_dir))
    git.run(["init", "--quiet", "--bare", "--template=", "--initial-branch=airlock-none", str(draft)])
    try:
        os.rename(draft, mirror)  # atomic: nobody sees half a mirror
    except OSError:  # another process was first
        shutil.rmtree(draft, ignore_errors=True)
    return mirror


def fetch_base(settings: Settings, repository: str, path: str, branch: str) -> str:
    """Bring one branch of the person's repository into the mirror, as ``refs/base/<branch>``; nothing else is fetched.

    Returns:
        The commit that the branch is at.

    Raises:
        BadInput: the path is no git repository, the repository is empty or shallow, or it has no such branch.
    """
    heads = _heads(path)
    if not heads:
        raise BadInput("repository", f"{path} has no commits", "Commit something first, then submit again.")
    if branch not in heads:
        close = difflib.get_close_matches(branch, heads, n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Known branches: {', '.join(sorted(heads)[:10])}."
        raise BadInput("base", f"{branch!r} is not a branch of {path}", remedy)
    if git.text(["-C", path, "rev-parse", "--is-shallow-repository"]) == "true":
        raise BadInput("repository", f"{path} is a shallow clone", "Run `git fetch --unshallow` in it, then submit again.")
    mirror = path_of(settings, repository)
    wanted = f"+refs/heads/{branch}:refs/base/{branch}"
    options = ["--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance"]
    try:
        git.run(["fetch", *options, "--end-of-options", path, wanted], mirror, protocol="file")
    except GitFailed:
        if not trees.clear_stale_locks(mirror, f"refs/base/{branch}"):
            raise
        git.run(["fetch", *options, "--end-of-options", path, wanted], mirror, protocol="file")
    return git.text(["rev-parse", "--verify", "--end-of-options", f"refs/base/{branch}^{{commit}}"], mirror)


def has_uncommitted(path: str) -> bool:
    """True if the person's work tree holds changes or new files that no commit has; they are not part of a goal."""
    if not Path(path, ".git").exists():
        return False
    return bool(changed_paths(path))


def changed_paths(path: str) -> list[str]:
    """The paths of the person's work tree that differ from its last commit, new files included."""
    asked = ["-C", path, "status", "--porcelain=v1", "-z", "--no-renames", "--ignore-submodules=all", "--untracked-files=normal"]
    return [entry[3:] for entry in git.text(asked).split("\0") if entry]


def _heads(path: str) -> dict[str, str]:
    """Branch to commit, as the person's repository tells.

    Raises:
        BadInput: not a git repository that can be read.
    """
    remedy = "Name the folder of a git repository that you may read."
    if not os.path.isabs(path) or not os.path.isdir(path):
        raise BadInput("repository", f"{path} is not a folder", remedy)
    try:
        listed = git.text(["ls-remote", "--heads", "--end-of-options", path], protocol="file")
    except GitFailed as error:
        if "dubious ownership" in str(error):
            raise BadInput(
                "repository", f"{path} belongs to another user", "Run Airlock as its owner, or use a clone of your own."
            ) from error
        raise BadInput("repository", f"{path} is not a git repository", remedy) from error
    rows = (line.split("\t", 1) for line in listed.splitlines())
    return {ref.removeprefix("refs/heads/"): commit for commit, ref in rows}
