"""Wall-clock figures need a quiet machine: the fixture ``figure`` holds them to their bars there, and only tells them on a busy one.

Quiet means: before the test, and again when a figure misses its bar, the machine's cores are idle for at least ``IDLE`` of half a second.
``AIRLOCK_QUIET=1`` says that the machine must be quiet; then a busy one fails the test.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

IDLE = 0.6
LOOK_S = 0.5
MOST = 15
"""So many tests may use ``figure``; ``tests/test_house.py`` holds it."""

Figure = Callable[[str, float, float], None]


def idle() -> float:
    """Measure the share of all cores that is idle over half a second, from 0 to 1."""
    before = _ticks()
    time.sleep(LOOK_S)
    after = _ticks()
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def _ticks() -> tuple[int, int]:
    numbers = [int(word) for word in Path("/proc/stat").read_text().partition("\n")[0].split()[1:]]
    return numbers[3] + numbers[4], sum(numbers[:8])


@pytest.fixture
def figure() -> Iterator[Figure]:
    """Hold a figure against its bar: ``figure(words, value, at_most)``."""
    free = idle()

    def hold(words: str, value: float, at_most: float) -> None:
        if value <= at_most:
            return
        story = f"{words}: {value:.3g}, and the bar is {at_most:.3g}"
        rest = min(free, idle())
        if rest >= IDLE:
            pytest.fail(story)
        story += f". The machine was busy ({rest:.0%} idle, quiet is {IDLE:.0%})"
        if os.environ.get("AIRLOCK_QUIET") == "1":
            pytest.fail(f"{story}, and AIRLOCK_QUIET=1 says that it must not be.")
        warnings.warn(f"NOT HELD: {story}. Run it again with nothing else running.", stacklevel=2)

    yield hold
