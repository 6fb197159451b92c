"""Bundles that go into sandboxes: one file a commit, one ref, written once and kept."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from include.repository import git
from include.settings import Settings

REF = "refs/heads/airlock-base"


def export_bundle(settings: Settings, mirror: Path, commit: str) -> Path:
    """Write ``bundles/<commit>.bundle`` with the history of a commit, unless it is there.

    The header is written here and the pack by git, so that no ref of the mirror is needed and two exports cannot disturb each other.

    Returns:
        The file; readable by all, since the warden links it into sandboxes, in a folder that nobody else enters.

    Raises:
        GitFailed: the mirror has no such commit.
    """
    bundle = settings.bundles_dir / f"{commit}.bundle"
    if bundle.exists():
        os.utime(bundle)  # young again: it is not pruned under the one who asks for it now
        return bundle
    git.run(["cat-file", "-e", f"{commit}^{{commit}}"], mirror)
    settings.bundles_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=".making-", dir=settings.bundles_dir)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"# v2 git bundle\n{commit} {REF}\n\n".encode())
            file.flush()
            asked = ["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset"]
            git.run(asked, mirror, stdin=f"{commit}\n".encode(), into=file)
            os.fsync(descriptor)
    except BaseException:
        os.unlink(draft)
        raise
    os.chmod(draft, 0o444)
    os.replace(draft, bundle)
    return bundle
