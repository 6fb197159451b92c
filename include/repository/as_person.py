"""git as the person who asks runs it: in their own folder, with their own configuration. It looks, and changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git_dir(path: Path) -> Path | None:
    """Find git's own folder of a repository; None: the path is in no git repository that the person may read."""
    said = _ask(path, "rev-parse", "--absolute-git-dir")
    return None if said is None else Path(said.strip())


def uncommitted(path: Path) -> int:
    """Count the files of a work tree that differ from its last commit, new ones included (0 for a bare repository).

    What the person's own configuration ignores is not counted.
    """
    return len((_ask(path, "status", "--porcelain") or "").splitlines())


def commits_between(path: Path, older: str, newer: str) -> list[str] | None:
    """List the commits after ``older`` up to ``newer``, newest first, each in a line; None: they cannot be read."""
    said = _ask(path, "log", "--oneline", "--no-decorate", f"{older}..{newer}")
    return None if said is None else said.splitlines()


def _ask(path: Path, *words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(path), *words], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
