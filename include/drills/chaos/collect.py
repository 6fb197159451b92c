"""Look at everything once it is over: the database, the git history, the sandboxes' leftovers, and the sample's tests on main."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from include.database.unit_of_work import transaction
from include.drills import person
from include.drills.chaos import store
from include.drills.chaos.models import ClientGoal, Remains
from include.drills.chaos.work import git
from include.settings import Settings

SETTLE_S = 90.0
"""The last sandboxes, streams and reserves are cleared within this time after the last goal's end."""


def facts(settings: Settings, asked: list[ClientGoal], sample: Path, repository: str, manual: list[str]) -> Remains:
    """Collect all that ``rules.judge`` needs."""
    leftovers = _settled(settings)
    with transaction("owner") as connection:
        found = store.ends(connection)
        branches = store.unlanded(connection)
    mirror = settings.mirrors_dir / f"{repository}.git"
    return Remains(
        asked=tuple(sorted(asked, key=lambda each: each.key)),
        on_main=_trailers(sample, "main"),
        kept=tuple(name for branch in branches for name in _trailers(mirror, f"refs/heads/{branch}")),
        leftovers=leftovers,
        main_is_green=_is_green(sample),
        manual_steps=tuple(manual),
        **dict(found),
    )


def _settled(settings: Settings) -> dict[str, int]:
    end = time.monotonic() + SETTLE_S
    while any((found := person.leftovers(settings)).values()) and time.monotonic() < end:
        time.sleep(1)
    return found


def _trailers(repository: Path, ref: str) -> tuple[str, ...]:
    lines = git(repository, "log", "--format=%(trailers:key=Task-Run,valueonly,separator=%x0a)", ref, "--")
    return tuple(line.strip() for line in lines.splitlines() if line.strip())


def _is_green(sample: Path) -> bool:
    """Run the sample's own tests on a fresh clone of main."""
    with tempfile.TemporaryDirectory(prefix="airlock-chaos-main-") as folder:
        git(sample, "clone", "--quiet", "--branch", "main", str(sample), folder)
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
        return subprocess.run(tests, cwd=folder, capture_output=True, check=False).returncode == 0
