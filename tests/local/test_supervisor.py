"""The supervisor: order, restart with backoff, stop, and nothing left, with small processes of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.errors import Unavailable
from include.local import control, leftovers, runtime
from include.local.child import Child, child_environment
from include.local.models import ProcessState
from include.local.processes import Supervised
from tests.conftest import wait_until
from tests.kit.scale import patience

pytestmark = pytest.mark.slow  # supervisors and servers, started and killed

# The supervisor as it runs in the product, with a list of processes that the test hands in.
PROGRAM = """
import json, sys
from pathlib import Path
from include.local.processes import Supervised
from include.local.supervisor import Supervisor, take_lock
home, given = Path(sys.argv[1]), json.loads(sys.argv[2])
lock = take_lock(home)
assert lock is not None, "another supervisor holds the lock"
marks = home / "marks"
marks.mkdir(exist_ok=True)
processes = [
    Supervised(row["name"], tuple(row["command"]), tuple(row.get("needs", ())), once=row.get("once", False), stop_s=1.0,
            ready=lambda row=row: not row.get("ready") or (marks / row["ready"]).exists())
    for row in given
]
Supervisor(home, processes).run()
"""
SLEEP = ["sleep", "300"]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    for folder in ("run", "logs"):
        (tmp_path / folder).mkdir()
    yield tmp_path
    if (pid := control.supervisor_pid(tmp_path)) is not None:
        os.kill(pid, signal.SIGTERM)
    leftovers.stop(tmp_path)


def start(home: Path, *processes: dict[str, object]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, str(home), json.dumps(processes)]
    log = (home / "logs" / "supervisor.log").open("ab")
    return subprocess.Popen(command, env=child_environment(home) | {leftovers.MARK: ""}, stdout=log, stderr=log, start_new_session=True)


def child(home: Path, name: str) -> ProcessState:
    return control.state(home).process(name)


def wait_for(home: Path, name: str, state: str) -> ProcessState:
    return wait_until(f"{name} becomes {state}: {control.state(home)}", lambda: child(home, name).state == state and child(home, name))


def test_a_process_waits_for_what_it_needs(home: Path) -> None:
    start(home, {"name": "first", "command": SLEEP, "ready": "open"}, {"name": "second", "command": SLEEP, "needs": ["first"]})
    wait_for(home, "first", "starting")
    time.sleep(0.5)
    assert child(home, "second").state == "waiting"
    (home / "marks" / "open").touch()
    wait_for(home, "second", "ready")
    assert control.state(home).state == "ready"


def test_a_step_must_end_well_before_others_start(home: Path) -> None:
    start(
        home,
        {"name": "step", "command": ["sh", "-c", "test -e marks-open"], "once": True},
        {"name": "after", "command": SLEEP, "needs": ["step"]},
    )
    wait_until("the step fails and is tried again", lambda: child(home, "step").restarts >= 1)
    assert child(home, "after").state == "waiting"


def test_a_killed_process_is_started_again(home: Path) -> None:
    start(home, {"name": "server", "command": SLEEP})
    before = wait_for(home, "server", "ready")
    os.kill(int(before.pid), signal.SIGKILL)
    after = wait_until("a new pid", lambda: (now := child(home, "server")).state == "ready" and now.pid != before.pid and now)
    assert after.restarts == 1 and after.exit == -signal.SIGKILL


def test_the_pause_before_a_restart_grows(home: Path) -> None:
    times_file = home / "times"
    start(home, {"name": "bad", "command": ["sh", "-c", f"date +%s.%N >> {times_file}; exit 3"]})
    log = home / "logs" / "supervisor.log"
    wait_until("three starts", lambda: child(home, "bad").restarts >= 3, 15)
    assert log.read_text().count("bad ended with 3") == 3
    times = [float(word) for word in times_file.read_text().split()]
    first, second = times[1] - times[0], times[2] - times[1]
    assert 0.9 < first < patience(1.9) and 1.9 < second < patience(3.5)


def test_the_pause_begins_anew_once_a_process_was_steady() -> None:
    child = Child(Supervised("server", ("true",)))
    for falls, ready_s_ago, pause in ((1, 0, 1), (2, 0, 2), (3, 5, 4), (1, 11, 1)):
        child.ready_at = time.time() - ready_s_ago if ready_s_ago else 0.0
        child.fell(100.0)
        assert (child.falls, child.due) == (falls, 100.0 + pause)


def test_stop_leaves_nothing_also_not_grandchildren_and_the_deaf(home: Path) -> None:
    family = "sleep 301 & setsid sleep 302 & wait"
    deaf = "trap '' TERM INT; while :; do sleep 0.2; done"
    start(home, {"name": "family", "command": ["sh", "-c", family]}, {"name": "deaf", "command": ["sh", "-c", deaf]})
    wait_for(home, "deaf", "ready")
    wait_until("control: they are there", lambda: len(leftovers.find(home)) >= 4)
    assert control.down(home, print) == 0
    assert leftovers.find(home) == []
    assert control.state(home).state == "down"


def test_children_die_with_a_killed_supervisor(home: Path) -> None:
    supervisor = start(home, {"name": "server", "command": SLEEP})
    wait_for(home, "server", "ready")
    supervisor.kill()
    supervisor.wait()
    wait_until("the child is gone", lambda: leftovers.find(home) == [], 5)
    assert control.supervisor_pid(home) is None  # the next `up` finds the lock free


def test_a_second_supervisor_finds_the_first(home: Path) -> None:
    start(home, {"name": "server", "command": SLEEP})
    wait_for(home, "server", "ready")
    second = start(home, {"name": "other", "command": SLEEP})
    assert second.wait(patience(20)) != 0
    said: list[str] = []
    control.up(home, said.append)
    assert said[0] == "Airlock is already up."


BURN = "import sys, time; from pathlib import Path; end = time.monotonic() + float(sys.argv[1])\nwhile time.monotonic() < end: pass\n" \
       "Path(sys.argv[2]).touch(); time.sleep(300)"  # fmt: skip


def slow(home: Path, seconds: float) -> dict[str, object]:
    """A process that needs the processor for so long before it is ready."""
    command = [sys.executable, "-c", BURN, str(seconds), str(home / "marks" / "open")]
    return {"name": "slow", "command": command, "ready": "open"}


def test_up_waits_longer_than_its_patience_for_what_gets_on(home: Path) -> None:
    start(home, slow(home, 9), {"name": "after", "command": SLEEP, "needs": ["slow"]})
    wait_for(home, "slow", "starting")
    said: list[str] = []
    control._wait(home, said.append, 3, None)
    assert "  slow is up" in said and said[-1].startswith("All is up after")
    assert control.state(home).state == "ready"


def test_control_up_gives_up_where_nothing_moves(home: Path) -> None:
    start(home, {"name": "hung", "command": SLEEP, "ready": "never"})
    wait_for(home, "hung", "starting")
    with pytest.raises(Unavailable, match=r"^Nothing has moved for 3 s: hung\. Look at `./airlock logs hung`"):
        control._wait(home, print, 3, None)


def test_up_waits_for_what_gets_on_but_not_for_ever(home: Path) -> None:
    start(home, slow(home, 300))
    wait_for(home, "slow", "starting")
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"^Not all is up after \d+ s: slow\."):
        control._wait(home, print, 1.5, None)
    assert time.monotonic() - began > 14


def test_leftovers_spare_strangers(home: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    ours = subprocess.Popen(SLEEP, env={**os.environ, leftovers.MARK: str(home)})
    try:
        assert leftovers.stop(home) == 1
        assert ours.wait(patience(5)) == -signal.SIGTERM
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_taken_port_is_changed_and_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        runtime.update(tmp_path, api_port=port)
        notes = runtime.choose(tmp_path)
        assert notes == [f"Port {port} is taken: Airflow's UI uses {runtime.read(tmp_path)['api_port']}."]
    assert runtime.read(tmp_path)["api_port"] != port
    assert (tmp_path / "runtime.json").stat().st_mode & 0o777 == 0o600


def test_free_ports_and_passwords_are_kept(tmp_path: Path) -> None:
    runtime.choose(tmp_path)
    before = runtime.read(tmp_path)
    assert runtime.choose(tmp_path) == [] and runtime.read(tmp_path) == before
