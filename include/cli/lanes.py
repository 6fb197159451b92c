"""Run several pytest processes side by side, show their output line by line under their names, and add up where the time went."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from include.local.control import Say
from include.settings import ROOT


@dataclass(frozen=True)
class Lane:
    """One process that checks something.

    Args:
        name: stands before each of its lines.
        command: after the Python that runs it, for example ``("pytest", "-m", "fast")``.
        environment: variables that it gets besides ours.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def is_pytest(self) -> bool:
        """Tell whether it leaves a JUnit report."""
        return self.command[0] == "pytest"


@dataclass
class Times:
    """What a package of tests cost: seconds are the sum of its tests' own, whatever ran beside them."""

    tests: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    longest: str = ""
    longest_s: float = 0.0

    def add(self, name: str, seconds: float, failed: bool, skipped: bool) -> None:
        """Count one test."""
        self.tests, self.failed, self.skipped = self.tests + 1, self.failed + failed, self.skipped + skipped
        self.seconds += seconds
        if seconds > self.longest_s:
            self.longest, self.longest_s = name, seconds


def run(lanes: list[Lane], folder: Path, say: Say) -> dict[str, int]:
    """Run lanes side by side until all have ended.

    Args:
        lanes: what runs.
        folder: where the JUnit reports go, ``<lane>.xml``.
        say: called with each line.

    Returns:
        The exit code of each lane by its name.
    """
    children = {lane.name: _start(lane, folder) for lane in lanes}
    width = max(len(lane.name) for lane in lanes)
    threads = [threading.Thread(target=_tell, args=(child, f"{name:{width}} | ", say)) for name, child in children.items()]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    codes = {}
    for name, child in children.items():
        codes[name] = child.wait()
    for thread in threads:
        thread.join()
    say(f"{', '.join(children)}: {time.monotonic() - began:.0f} s")
    return codes


def _start(lane: Lane, folder: Path) -> subprocess.Popen[str]:
    report = [f"--junitxml={folder / lane.name}.xml"] if lane.is_pytest else []
    return subprocess.Popen(
        [sys.executable, "-m", *lane.command, *report],
        cwd=ROOT, env=lane.environment | {"PYTHONUNBUFFERED": "1", "COLUMNS": "140"}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def _tell(child: subprocess.Popen[str], prefix: str, say: Say) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        say(prefix + line.rstrip())


def read(folder: Path) -> dict[str, Times]:
    """Add up the JUnit reports of a folder, by the package of the tests."""
    found: dict[str, Times] = defaultdict(Times)
    for report in sorted(folder.glob("*.xml")):
        for case in ET.parse(report).iter("testcase"):
            package, name = _package(case.get("classname", "")), case.get("name", "")
            failed = case.find("failure") is not None or case.find("error") is not None
            found[package].add(name, float(case.get("time", 0)), failed, case.find("skipped") is not None)
    return dict(found)


def _package(classname: str) -> str:
    """Name the package of a test's class: ``tests.broker.test_streams`` is of ``tests/broker``, ``tests.test_house`` of ``tests``."""
    parts = classname.split(".")
    return "/".join(parts[:2]) if len(parts) > 2 else "tests"


def table(found: dict[str, Times]) -> list[str]:
    """Tell where the time went, the dearest package first, as lines."""
    lines = [f"{'package':18} {'tests':>5} {'failed':>6} {'skipped':>7} {'seconds':>7}  longest"]
    for package, times in sorted(found.items(), key=lambda item: -item[1].seconds):
        longest = f"{times.longest_s:.0f} s {times.longest}"[:70]
        lines.append(f"{package:18} {times.tests:5} {times.failed:6} {times.skipped:7} {times.seconds:7.0f}  {longest}")
    return lines


def summary(found: dict[str, Times]) -> str:
    """Write the closing line: how many passed, failed and were skipped."""
    failed, skipped = sum(times.failed for times in found.values()), sum(times.skipped for times in found.values())
    return f"{sum(times.tests for times in found.values()) - failed - skipped} passed, {failed} failed, {skipped} skipped"


def slowdown() -> float:
    """Measure how many times longer than its own processor time a busy process takes here: 1.0 on a free machine."""
    began, cpu = time.perf_counter(), time.process_time()
    while time.process_time() - cpu < 0.3:
        pass
    return max(1.0, (time.perf_counter() - began) / 0.3)


def environment(**more: str) -> dict[str, str]:
    """Make the environment of tests: they make homes of their own; the person's settings and keys are not theirs."""
    kept = ("AIRLOCK_CORPORA", "AIRLOCK_QUIET", "AIRLOCK_PICTURES")
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRLOCK_", "ANTHROPIC_")) or name in kept or name.startswith("AIRLOCK_TEST_")
    }
    return ours | more
