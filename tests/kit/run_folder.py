"""The folder of a test run: what its processes tell each other stands there."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "AIRLOCK_TEST_RUN"


def make() -> None:
    """Make it; called in the first process of a run, and all others inherit its name."""
    os.environ[VARIABLE] = tempfile.mkdtemp(prefix="airlock-run-")


def folder() -> Path:
    """Where it is."""
    return Path(os.environ[VARIABLE])


def remove() -> None:
    """Remove it, at the end of the run."""
    shutil.rmtree(folder())
