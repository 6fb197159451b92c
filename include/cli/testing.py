"""``./airlock test``: ruff, mypy and pytest at three speeds. Its last line is the sum of all lanes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from include.cli import lanes, long
from include.cli.lanes import Lane
from include.cli.person import tell
from include.errors import BadInput
from include.local import checks
from include.local.control import Say
from include.settings import ROOT, load

STACKS = ("tests/ui", "tests/e2e", "tests/flow")
"""Packages whose tests need a running Airflow or Airlock."""
BESIDE = 3
"""Processes of the tests that need no stack."""
STACK_USERS = 4
"""Processes of those that do; they mostly wait."""


def run(arguments: list[str], say: Say) -> int:
    """Run the checks and the tests.

    Args:
        arguments: ``--fast``: what starts no process, two minutes; ``--long``: full counts, in parts that are not done again (see
            ``long.py``); anything else goes to pytest, and then only pytest runs; nothing: everything at its everyday size.
        say: called with each line a person should see.

    Returns:
        The exit code: 0 when all is green.

    Raises:
        BadInput: ``--fast`` with further arguments, or ``--long`` with words that no part has.
    """
    if arguments[:1] == ["--fast"]:
        if arguments[1:]:
            remedy = "Leave them out, or name tests without --fast: `./airlock test tests/local -k ports`."
            raise BadInput("--fast", f"takes no further arguments, and got {' '.join(arguments[1:])}", remedy)
        return _finish([_checks(), [_pytest("fast", 2, "fast", ignore=STACKS)]], say)
    _ensure_image(say)
    if arguments and arguments[0] == "--long":
        return long.run(arguments[1:], say)
    if arguments:
        return subprocess.run([sys.executable, "-m", "pytest", *arguments], cwd=ROOT, env=lanes.environment(), check=False).returncode
    beside = _pytest("beside", BESIDE, "not quiet", ignore=STACKS)
    stacks = _pytest("stacks", STACK_USERS, "not quiet", only=STACKS)
    return _finish([[*_checks(), beside, stacks], [_pytest("quiet", 0, "quiet")]], say)


def _checks() -> list[Lane]:
    """List what looks at the code without running it."""
    environment = lanes.environment()
    return [
        Lane("ruff", ("ruff", "check", "."), environment),
        Lane("format", ("ruff", "format", "--check", "."), environment),
        Lane("mypy", ("mypy",), environment),
    ]


def _pytest(name: str, processes: int, marks: str, only: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> Lane:
    spread = ("-n", str(processes), "--dist", "loadgroup", "--no-loadscope-reorder") if processes else ()
    paths = (*only, *(f"--ignore={path}" for path in ignore))
    return Lane(name, ("pytest", "-m", marks, *spread, *paths), lanes.environment(AIRLOCK_TEST_PACE=_pace()))


def _pace() -> str:
    return f"{min(8.0, lanes.slowdown()):.1f}"


def _finish(rounds: list[list[Lane]], say: Say) -> int:
    """Run round after round, then say where the time went; the last line is the sum."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="airlock-lanes-") as folder:
        codes = {name: code for lanes_ in rounds for name, code in lanes.run(lanes_, Path(folder), say).items()}
        found = lanes.read(Path(folder))
    for line in lanes.table(found):
        say(line)
    bad = [name for name, code in codes.items() if code]
    say(f"{time.monotonic() - began:.0f} s in all" + (f"; red: {', '.join(bad)}, see above" if bad else "; all green"))
    tell(lanes.summary(found))
    return 1 if bad else 0


def _ensure_image(say: Say) -> None:
    settings = load()
    if problem := checks.docker_problem(settings.docker_host):
        say(f"No usable Docker engine ({problem}): the tests that need it are skipped.")
        return
    from include.sandbox import image

    image.build_image(settings)
