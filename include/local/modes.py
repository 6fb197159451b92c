"""Who may look into a home: its owner. Others pass through it only where a sandbox of another uid must."""

from __future__ import annotations

import os
from pathlib import Path

PRIVATE = ("airflow", "bundles", "handins", "keys", "logs", "mirrors", "run", "valkey")
"""Folders in a home that nobody else enters: what lies in them, a bundle for example, may itself be readable by all."""


def make(home: Path) -> None:
    """Make the folder of all state, closed from the first moment; whoever comes first makes it, be it for a key or a log."""
    home.mkdir(mode=0o700, parents=True, exist_ok=True)


def close(home: Path) -> None:
    """Make a home, or close what an older version left open.

    As root the attempts' directories of an open home lie in it, and sandboxes have uids of their own: they go on passing through, and see
    nothing. A home that is closed stays so: its attempts' directories lie elsewhere (``include.sandbox.folders.root``).
    """
    make(home)
    passed = os.geteuid() == 0 and home.stat().st_mode & 0o001
    _set(home, 0o711 if passed else 0o700)
    for name in PRIVATE:
        if (folder := home / name).is_dir() and not folder.is_symlink():
            _set(folder, 0o700)


def _set(folder: Path, mode: int) -> None:
    if folder.stat().st_mode & 0o777 != mode:
        folder.chmod(mode)
