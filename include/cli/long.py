"""``./airlock test --long``: every sized test at its full count, in parts of at most half an hour; a green part is not done again.

A part is a file of tests without a stack, or one test with a stack of its own. What came of each part is kept in ``home/long.json`` and
told in ``docs/measurements/long.md``, which is written anew after each part, so that a run may be stopped and gone on with at any time.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from include.cli import lanes
from include.cli.person import tell
from include.clock import now
from include.errors import BadInput
from include.frozen import Frozen
from include.local.control import Say
from include.settings import ROOT, load

PART_S = 1800
"""Seconds that a part may take; one that takes longer is red."""
PAGE = ROOT / "docs" / "measurements" / "long.md"
STACKS = ("tests/ui/", "tests/e2e/", "tests/flow/")


class Done(Frozen):
    """What came of a part."""

    part: str
    commit: str
    at: str
    seconds: float
    words: str
    green: bool
    told: tuple[str, ...]


def run(arguments: list[str], say: Say) -> int:
    """Run the parts that are not green yet at this commit.

    Args:
        arguments: words; only the parts are run whose name contains one of them. Without any: all.
        say: called with each line a person should see.

    Returns:
        The exit code: 0 when every part that was asked for is green.

    Raises:
        BadInput: no part has any of the words: then nothing would run, and look green.
    """
    commit, parts = _commit(), chosen(collect(), arguments)
    known = {done.part: done for done in read()}
    for number, part in enumerate(parts, 1):
        if part in known and known[part].commit == commit and known[part].green:
            say(f"part {number} of {len(parts)}: {part} is green already at {commit}")
            continue
        say(f"part {number} of {len(parts)}: {part}")
        known[part] = _part(part, commit, say)
        write(list(known.values()))
    red = [part for part in parts if not known[part].green]
    say(f"{len(parts) - len(red)} of {len(parts)} parts are green" + (f"; red: {', '.join(red)}" if red else ""))
    tell(f"{len(parts) - len(red)} passed, {len(red)} failed")
    return 1 if red else 0


def chosen(parts: list[str], words: list[str]) -> list[str]:
    """Choose the parts whose name contains one of the words; all without words.

    Raises:
        BadInput: there is none.
    """
    found = [part for part in parts if not words or any(word in part for word in words)]
    if not found:
        raise BadInput("--long", f"no part is named like {' or '.join(words) or 'anything'}", f"There are: {', '.join(parts) or 'none'}.")
    return found


def collect() -> list[str]:
    """List the parts: what pytest is given for each."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "sized", "-p", "no:cacheprovider"]
    listed = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False).stdout
    tests = [line for line in listed.splitlines() if "::" in line]
    return list(dict.fromkeys(test if test.startswith(STACKS) else test.partition("::")[0] for test in tests))


def _environment() -> dict[str, str]:
    return lanes.environment(AIRLOCK_TEST_LONG="1")


def _part(part: str, commit: str, say: Say) -> Done:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="airlock-long-") as folder:
        report = Path(folder) / "part.xml"
        command = [sys.executable, "-m", "pytest", "-m", "sized", "-o", "junit_logging=system-out", f"--timeout={PART_S}",
                   f"--junitxml={report}", part]  # fmt: skip
        child = subprocess.Popen(command, cwd=ROOT, env=_environment())
        try:
            code = child.wait(PART_S + 120)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        words = lanes.summary(lanes.read(Path(folder))) if report.exists() else f"ended with {code} and without a report"
        told = _told(report) if report.exists() else ()
    seconds = time.monotonic() - began
    green = code == 0 and seconds <= PART_S
    say(f"{part}: {words}, {seconds / 60:.1f} min")
    return Done(part=part, commit=commit, at=f"{now():%Y-%m-%d %H:%M} UTC", seconds=seconds, words=words, green=green, told=told)


def _told(report: Path) -> tuple[str, ...]:
    """Take what the tests printed: the figures that they measured."""
    texts = [out.text or "" for case in ET.parse(report).iter("testcase") for out in case.iter("system-out")]
    lines = [line.rstrip() for text in texts for line in text.splitlines()]
    return tuple(line for line in lines if line.strip() and not line.startswith("-----"))[:60]


# -- what is kept --------------------------------------------------------------------------------------------------------


def read() -> list[Done]:
    """Read what came of the parts that were run so far."""
    path = load().home / "long.json"
    return [Done.model_validate(row) for row in json.loads(path.read_text())] if path.exists() else []


def write(parts: list[Done]) -> None:
    """Keep what came of the parts, and write the page that tells it."""
    path = load().home / "long.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps([done.model_dump() for done in parts], indent=1))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(parts, _machine()))


def page(parts: list[Done], machine: str) -> str:
    """Write the page: a row a part, then what each part told."""
    rows = [f"| `{done.part}` | {done.words} | {done.seconds / 60:.1f} | {done.at} | {done.commit} |" for done in parts]
    told = [f"\n## `{done.part}`\n\n```\n" + "\n".join(done.told) + "\n```" for done in parts if done.told]
    head = [
        "# The long run",
        "",
        "Full counts, made by `./airlock test --long` (a part again: `./airlock test --long PART`). A row is the part's last run.",
        f"Machine: {machine}.",
        "",
        "| part | result | minutes | when | commit |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows, *told]) + "\n"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    kernel, _, _ = platform.release().partition("-")
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {kernel}, Python {platform.python_version()}"


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "--short=10", "HEAD") + (
        "+" if git("status", "--porcelain", "--", "include", "tests", "dags", "plugins") else ""
    )
