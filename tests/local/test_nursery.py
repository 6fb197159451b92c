"""Nurseries: they fork whom the supervisor asks for, who are the supervisor's own children; and what happens when one is killed or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local import control, leftovers
from include.local.child import child_environment
from tests.conftest import wait_until

pytestmark = pytest.mark.slow  # supervisors and servers, started and killed

# A program that says who and whose it is, what its environment and command line are, and whether the nursery's import was inherited.
MODULE = """
import os, sys, time
LOADED_BY = os.getpid()
def main():
    line = " ".join([str(os.getpid()), str(os.getppid()), str(LOADED_BY), sys.argv[1], os.environ["AIRLOCK_HOME"]])
    print(line, flush=True)
    if sys.argv[1] == "bad":
        sys.exit("it went wrong")
    time.sleep(300)
if __name__ == "__main__":
    main()
"""
PROGRAM = """
import sys
from pathlib import Path
from include.local import nursery
from include.local.processes import Supervised
from include.local.supervisor import Supervisor, take_lock
home = Path(sys.argv[1])
nursery.ANSWER_S = 2.0
lock = take_lock(home)
def python(module, *arguments):
    return (sys.executable, "-m", module, *arguments)
Supervisor(home, [
    Supervised("nursery", python("include.local.nursery", "nursling", "there.is.no.such.module"), is_nursery=True),
    Supervised("inner", python("include.local.nursery", "json"), ("nursery",), nursery="nursery", is_nursery=True),
    Supervised("one", python("nursling", "good"), ("nursery",), nursery="nursery", stop_s=1.0),
    Supervised("two", python("nursling", "good"), ("inner",), nursery="inner", stop_s=1.0),
    *([Supervised("bad", python("nursling", "bad"), ("nursery",), nursery="nursery")] if "bad" in sys.argv else []),
]).run()
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    for folder in ("run", "logs"):
        (tmp_path / folder).mkdir()
    (tmp_path / "nursling.py").write_text(MODULE)
    yield tmp_path
    if (pid := control.supervisor_pid(tmp_path)) is not None:
        os.kill(pid, signal.SIGTERM)
    leftovers.stop(tmp_path)


def start(home: Path, *more: str) -> subprocess.Popen[bytes]:
    environment = child_environment(home) | {leftovers.MARK: "", "PYTHONPATH": f"{home}{os.pathsep}{Path.cwd()}"}
    log = (home / "logs" / "supervisor.log").open("ab")
    command = [sys.executable, "-c", PROGRAM, str(home), *more]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)


def pid(home: Path, name: str) -> int:
    return control.state(home).process(name).pid or 0


def told(home: Path, name: str) -> list[list[str]]:
    log = home / "logs" / f"{name}.log"
    return [line.split() for line in log.read_text().splitlines() if line[:1].isdigit()] if log.exists() else []


def all_up(home: Path) -> bool:
    return control.state(home).state == "ready" and bool(told(home, "one") and told(home, "two"))


def test_the_forked_are_children_of_the_supervisor_with_what_the_nursery_loaded(home: Path) -> None:
    supervisor = start(home)
    wait_until("all is up", lambda: all_up(home), 30)
    for name in ("one", "two"):
        ((me, parent, loaded_by, argument, their_home),) = told(home, name)
        assert (int(me), int(parent), argument, their_home) == (pid(home, name), supervisor.pid, "good", str(home))
        assert int(loaded_by) == pid(home, "nursery")  # also through the inner one, which was forked itself
        assert b"-m nursling good" in Path(f"/proc/{me}/cmdline").read_bytes().replace(b"\0", b" ")
        assert os.getpgid(int(me)) == int(me)
    assert {pid(home, name) for name in ("nursery", "inner", "one", "two")} <= set(leftovers.find(home))  # our mark is on all


def test_a_killed_child_is_forked_again_and_a_killed_nursery_takes_nobody_with_it(home: Path) -> None:
    start(home)
    wait_until("all is up", lambda: all_up(home), 30)
    one, two, nursery = pid(home, "one"), pid(home, "two"), pid(home, "nursery")
    os.kill(one, signal.SIGKILL)
    wait_until("another is there", lambda: pid(home, "one") not in (0, one) and len(told(home, "one")) == 2, 10)
    again = pid(home, "one")
    os.kill(nursery, signal.SIGKILL)
    wait_until("the nursery is back", lambda: pid(home, "nursery") not in (0, nursery) and all_up(home), 30)
    assert (pid(home, "one"), pid(home, "two")) == (again, two)
    os.kill(again, signal.SIGKILL)
    wait_until("the new nursery forks too", lambda: len(told(home, "one")) == 3, 10)
    assert int(told(home, "one")[-1][2]) == pid(home, "nursery")


def test_a_nursery_that_hangs_is_gone_around_and_makes_no_twin(home: Path) -> None:
    start(home)
    wait_until("all is up", lambda: all_up(home), 30)
    one, nursery = pid(home, "one"), pid(home, "nursery")
    os.kill(nursery, signal.SIGSTOP)
    os.kill(one, signal.SIGKILL)
    wait_until("it was started without the nursery", lambda: len(told(home, "one")) == 2 and pid(home, "one") not in (0, one), 20)
    now = pid(home, "one")
    assert told(home, "one")[-1][2] == str(now)  # it loaded the module itself
    os.kill(nursery, signal.SIGCONT)  # it takes up the request now; its child gets no word, and ends
    os.kill(pid(home, "two"), signal.SIGKILL)
    wait_until("the other is forked again", lambda: len(told(home, "two")) == 2, 10)
    marked = {who for who in leftovers.find(home) if b"nurs" in Path(f"/proc/{who}/cmdline").read_bytes()}
    wait_until("nobody else is there", lambda: marked - {now} <= {pid(home, name) for name in ("nursery", "inner", "two")}, 10)
    assert len(told(home, "one")) == 2


def test_the_forked_die_with_a_killed_supervisor(home: Path) -> None:
    supervisor = start(home)
    wait_until("all is up", lambda: all_up(home), 30)
    there = leftovers.find(home)
    assert len(there) == 4
    supervisor.kill()
    supervisor.wait()
    wait_until("all are gone", lambda: not any(leftovers.lives(who) for who in there), 10)
    assert control.supervisor_pid(home) is None  # none of them held its lock


def test_how_a_forked_child_ends_is_known(home: Path) -> None:
    start(home, "bad")
    wait_until("it fell twice", lambda: control.state(home).process("bad").falls >= 2, 30)
    assert control.state(home).process("bad").exit == 1
    assert "it went wrong" in (home / "logs" / "bad.log").read_text()
    assert "No module named 'there'" in (home / "logs" / "nursery.log").read_text()  # said, and nobody fell by it
