"""The pulse of Airflow's real scheduler: it tells one that is late from one that keeps up, and both from one that is dead."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from tests.conftest import wait_until
from tests.flow.conftest import Airflow

pytestmark = pytest.mark.slow

LOOK = """
SELECT clock_timestamp() - beat_at < interval '2 s' AS beats, steady_since,
       unwatched_at(clock_timestamp() - interval '4 min', '60 s') <= clock_timestamp() AS over,
       unwatched_at(clock_timestamp() - interval '11 min', '60 s') <= clock_timestamp() AS over_anyway,
       unwatched_at(clock_timestamp() - interval '4 min', clock_timestamp() - beat_at) <= clock_timestamp() AS over_when_dead
FROM pulses WHERE name = 'airflow/scheduler'
"""


def look(airflow: Airflow) -> dict[str, Any]:
    return airflow.database.execute(LOOK).fetchone() or {"beats": False}


def test_a_scheduler_that_is_late_ends_no_attempt_and_a_dead_one_does(airflow: Airflow) -> None:
    wait_until("the scheduler beats", lambda: look(airflow)["beats"], 60)
    before = look(airflow)["steady_since"]
    os.kill(airflow.pid("scheduler"), signal.SIGSTOP)
    try:
        time.sleep(4)
        late = look(airflow)
        # Late: nothing that lacks a watch is over, but after ten minutes. For so long that it counts as dead: over.
        assert (late["beats"], late["over"], late["over_anyway"], late["over_when_dead"]) == (False, False, True, True)
    finally:
        os.kill(airflow.pid("scheduler"), signal.SIGCONT)
    again = wait_until("it beats again", lambda: (now := look(airflow))["beats"] and now, 60)
    assert again["steady_since"] > before and not again["over"]  # the minute begins anew
