"""Controls of the supervisor: one that restarts nothing, one whose pause does not grow, and one whose children outlive it are seen."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from include.local import leftovers
from tests.local import test_supervisor
from tests.local.test_supervisor import SLEEP, child, home, start, wait_for  # noqa: F401 - home is a fixture

pytestmark = pytest.mark.slow  # supervisors and servers, started and killed

NEVER_AGAIN = """
from include.local.child import Child
def fell(self, now):
    self.state, self.due = "crashed", now + 1e9
Child.fell = fell
"""
STEADY_PAUSE = """
from include.local import child
child.BACKOFF_S = (0.1, 0.1)
"""
NO_DEATH_SIGNAL = """
import subprocess
def spawn(self, process):
    return subprocess.Popen(process.command, env=child_environment(self.home), start_new_session=True)
from include.local.child import child_environment
Supervisor._spawn = spawn
"""


def _broken(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """The supervisor as it runs in the product, but for this."""
    program = test_supervisor.PROGRAM
    assert program.count("home, given = ") == 1
    monkeypatch.setattr(test_supervisor, "PROGRAM", program.replace("home, given = ", f"{how}\nhome, given = "))


def test_control_without_a_restart_it_stays_away(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _broken(monkeypatch, NEVER_AGAIN)
    start(home, {"name": "server", "command": SLEEP})
    os.kill(int(wait_for(home, "server", "ready").pid or 0), signal.SIGKILL)
    wait_for(home, "server", "crashed")
    time.sleep(3)  # three times the first pause
    assert child(home, "server").state == "crashed"


def test_control_a_pause_that_does_not_grow_is_seen(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _broken(monkeypatch, STEADY_PAUSE)
    with pytest.raises(AssertionError):
        test_supervisor.test_the_pause_before_a_restart_grows(home)


def test_control_without_the_death_signal_children_live_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _broken(monkeypatch, NO_DEATH_SIGNAL)
    supervisor = start(home, {"name": "server", "command": SLEEP})
    wait_for(home, "server", "ready")
    supervisor.kill()
    supervisor.wait()
    time.sleep(2)
    assert len(leftovers.find(home)) == 1
