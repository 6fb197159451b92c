"""The load of ``chaos --load``: so many processes that want a processor, and none of them once it is over or its parent is gone."""

from __future__ import annotations

import subprocess
import sys

import psutil

from include.drills.chaos import burners
from tests.conftest import ROOT, wait_until


def children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def test_they_burn_and_are_gone() -> None:
    others = children()  # servers of other tests
    with burners.load(2, 60) as count:
        mine = children() - others
        assert count == len(mine) == 2 * len(psutil.Process().cpu_affinity() or [])
        wait_until("they use the processors", lambda: sum(child.cpu_times().user for child in mine) > 1, 60)
    assert not any(child.is_running() for child in mine)


def test_without_a_load_there_is_none() -> None:
    others = children()
    with burners.load(0, 60) as count:
        assert (count, children()) == (0, others)


def test_they_end_with_their_time_and_with_their_parent() -> None:
    program = "import sys, time; from include.drills.chaos import burners\nwith burners.load(1, float(sys.argv[1])): print(1, flush=True); time.sleep(60)"
    for seconds, killed in ((0.5, False), (60, True)):
        parent = subprocess.Popen([sys.executable, "-c", program, str(seconds)], cwd=ROOT, stdout=subprocess.PIPE)
        try:
            assert parent.stdout is not None and parent.stdout.readline()
            theirs = psutil.Process(parent.pid).children()
            assert theirs
            if killed:
                parent.kill()
                parent.wait()
            wait_until("they have ended", lambda burners=theirs: not any(_lives(child) for child in burners), 60)
        finally:
            parent.kill()
            parent.wait()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
