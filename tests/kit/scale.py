"""How large and how patient the tests are: counts for every day and for releases, and one factor for every time limit under test.

``./airlock test`` measures how much slower this machine is than a free one and hands the factor to the tests (``AIRLOCK_TEST_PACE``);
``./airlock test --long`` asks for the full counts (``AIRLOCK_TEST_LONG=1``).
"""

from __future__ import annotations

import os

LONG = os.environ.get("AIRLOCK_TEST_LONG") == "1"
PACE = max(1.0, float(os.environ.get("AIRLOCK_TEST_PACE") or 1))
PATIENCE = 3.0
"""How many times longer than on a free machine a test waits before it gives up: waiting costs nothing where all is well."""


def count(every_day: int, long: int) -> int:
    """Choose how often a test does what it does.

    Args:
        every_day: a size at which the test's broken variant still fails; for ``./airlock test``.
        long: the full count that the promise states; for ``./airlock test --long``.
    """
    return long if LONG else every_day


def limit(seconds: float) -> float:
    """Scale a time limit under test, in seconds, by this machine's pace: a heartbeat's timeout, an outage, a deadline."""
    return seconds * PACE


def patience(seconds: float) -> float:
    """Scale how long a test waits for what must come, in seconds, before it fails."""
    return seconds * PACE * PATIENCE
