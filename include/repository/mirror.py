"""The mirror: our bare copy of a repository. All that we do with its commits happens here, and never in the person's own folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from include.repository import git, remotes
from include.settings import Settings


def path_of(settings: Settings, repository: str) -> Path:
    """Return where the mirror of a registered repository lies."""
    return settings.mirrors_dir / f"{repository}.git"


def ensure_mirror(settings: Settings, repository: str, address: str) -> Path:
    """Make the mirror, empty, unless it is there.

    Args:
        repository: its registered name.
        address: where it lives, see ``remotes.at``.

    Returns:
        The mirror's folder.

    Raises:
        BadInput: no git repository that can be read is there.
    """
    mirror = path_of(settings, repository)
    if mirror.exists():
        return mirror
    remotes.at(address).heads()
    settings.mirrors_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".making-", dir=settings.mirrors_dir))
    git.run(["init", "--quiet", "--bare", "--template=", "--initial-branch=airlock-none", str(draft)])
    try:
        os.rename(draft, mirror)  # atomic: nobody sees half a mirror
    except OSError:  # another process was first
        shutil.rmtree(draft, ignore_errors=True)
    return mirror


def fetch_base(settings: Settings, repository: str, address: str, branch: str) -> str:
    """Bring one branch of the real repository into the mirror, as ``refs/base/<branch>``; returns its commit.

    Raises:
        BadInput: there is no git repository, it is empty or shallow, or it has no such branch.
    """
    return remotes.at(address).fetch(path_of(settings, repository), branch)
