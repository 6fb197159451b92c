"""``./airlock demo``: start everything, work a goal on a fresh sample repository, show what came of it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from include.cli import progress, result, submit
from include.cli.person import tell
from include.local import control
from include.local.control import Say
from include.settings import ROOT, Settings
from include.tasks.models import GoalRunState

GOAL = (
    "Show how fast each transfer was: a rate in the report, the fastest and the slowest transfer, and the documentation of both.\n\n"
    "Sizes and durations are parsed already. Add rates (bytes a second), keep every existing test green, and add tests for what is new."
)
SAMPLE = ROOT / "include" / "offline" / "sample"
_IDENTITY = ("-c", "user.name=Airlock sample", "-c", "user.email=sample@airlock.invalid", "-c", "commit.gpgsign=false")


def run(home: Path, say: Say, down_after: bool, offline: bool) -> int:
    """Run the demo.

    Args:
        home: folder of all state; the sample repository is made in it.
        say: called with each line a person should see.
        down_after: stop everything at the end.
        offline: use the offline model although there is a key.

    Returns:
        The exit code: 0 when the goal was completed.
    """
    settings = control.up(home, say, offline=offline)
    try:
        sample = make_sample(settings.home)
        say(f"The sample repository is {sample}.")
        goal = progress.watch(_submit(settings, sample))
        tell(*result.lines(settings, goal))
    finally:
        if down_after:
            control.down(home, say)
    if not down_after:
        tell(f"Look around: {settings.api_url} (admin / {settings.api_password}). Stop everything: ./airlock down")
    return 0 if goal.state is GoalRunState.COMPLETED else 1


def _submit(settings: Settings, sample: Path) -> str:
    request = submit.request(goal=GOAL, repository=submit.register(str(sample)).name, deadline="30m")
    return submit.submit(settings, request).run


def make_sample(home: Path) -> Path:
    """Make a fresh git repository of the sample project: ``home/sample``, or ``sample-2`` and so on when a demo has used that one.

    Returns:
        Its folder; branch main, one commit.
    """
    folder = next(home / name for name in ("sample", *(f"sample-{n}" for n in range(2, 10_000))) if not (home / name).exists())
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", ".pytest_cache"))
    _git(folder, "init", "--quiet", "--initial-branch=main")
    _git(folder, "add", ".")
    _git(folder, "commit", "--quiet", "--message", "quantity: durations, sizes, transfers")
    return folder


def _git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *_IDENTITY, *arguments], cwd=folder, check=True, capture_output=True)
