"""``./airlock test``: ruff, mypy, then pytest, so that pytest's summary is the last line."""

from __future__ import annotations

import os
import subprocess
import sys

from include.local import checks
from include.local.control import Say
from include.settings import ROOT, load


def run(arguments: list[str], say: Say) -> int:
    """Run the checks and the tests.

    Args:
        arguments: for pytest; when there are any, only pytest runs.
        say: called with each line a person should see.

    Returns:
        The exit code: pytest's, or 1 if only ruff or mypy complained.
    """
    _ensure_image(say)
    complaints = (
        0 if arguments else sum(_call(tool, say) for tool in (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]))
    )
    code = subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=_environment(), check=False).returncode
    if complaints:
        say(f"ruff or mypy complained {complaints} times, see above.")
    return code or min(complaints, 1)


def _environment() -> dict[str, str]:
    # Tests make homes of their own; the person's settings and keys are not theirs.
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "ANTHROPIC_")) or name == "AIRLOCK_CORPORA"
    }


def _call(tool: list[str], say: Say) -> int:
    say(f"$ {' '.join(tool)}")
    return int(subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, check=False).returncode != 0)


def _ensure_image(say: Say) -> None:
    settings = load()
    if problem := checks.docker_problem(settings.docker_host):
        say(f"No usable Docker engine ({problem}): the tests that need it are skipped.")
        return
    from include.sandbox import image

    image.build_image(settings)
