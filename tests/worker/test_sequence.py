"""Several commands in one seal: each as sealed as one alone, and the sequence ends where it is told to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from include.settings import ROOT
from include.worker import child, sequence
from include.worker.child import Bounds
from include.worker.errors import GitRefused
from include.worker.git import Repository
from include.worker.seal import DEVICES, REFUSED_EXIT, Policy
from include.worker.sequence import Command, Ran

PYTHON = ["/usr/bin/python3", "-I", "-S", "-c"]
UNIX_SOCKET = "import socket; socket.socket(socket.AF_UNIX); print('made')"


def run(paths, *commands: Command) -> tuple[child.Finished, list[Ran]]:
    policy = Policy(write=(str(paths.workspace), *DEVICES))
    return child.run_all(paths, Bounds(policy, timeout_s=20, cwd=paths.workspace, keep=1 << 20), list(commands))


def says(paths, words: str, **more: str) -> Command:
    return Command(["printf", words], str(paths.workspace), **more)


def test_it_goes_on_until_a_command_fails_or_says_the_end(sandbox):
    paths = sandbox()
    where = str(paths.workspace)
    _, ran = run(paths, says(paths, "a\n"), Command(["cat"], where, "é\udcff"), Command(["false"], where), says(paths, "never"))
    assert ran == [Ran(0, "a", ""), Ran(0, "é\udcff", ""), Ran(1, "", "")]
    assert [each.out for each in run(paths, says(paths, "0", unless="0"), says(paths, "never"))[1]] == ["0"]
    assert [each.out for each in run(paths, says(paths, "here", only="there"), says(paths, "never"))[1]] == ["here"]
    assert [each.out for each in run(paths, says(paths, "1", unless="0"), says(paths, "x", only="x"), says(paths, "y"))[1]] == [
        "1",
        "x",
        "y",
    ]
    assert run(paths, Command(["no-such-program"], where), says(paths, "never"))[1][0].code == 127


def test_every_command_of_it_is_sealed(sandbox, place: Path):
    paths = sandbox()
    secret = place / "secret.txt"
    secret.write_text("s")
    made = Command([*PYTHON, UNIX_SOCKET], str(paths.workspace))
    read = Command(["cat", str(secret)], str(paths.workspace))
    _, ran = run(paths, says(paths, "a"), made, read)
    assert [each.code for each in ran] == [0, 1] and "PermissionError" in ran[1].err
    with socket.socket(socket.AF_UNIX):  # control: here it can be made
        pass
    _, ran = run(paths, read)
    assert ran[0].code != 0 and secret.read_text() == "s"


@pytest.mark.parametrize("machine", ["vax", ""])
def test_what_cannot_be_sealed_is_not_run(place: Path, machine: str):
    policy = json.dumps(Policy(write=(str(place), *DEVICES))._asdict())
    code = "import sys; from include.worker import seccomp, sequence; seccomp.machine = lambda m=seccomp.machine(): sys.argv[2] or m; "
    commands = sequence.asked([Command(["touch", str(place / "ran")], str(place))])
    command = [sys.executable, "-c", f"{code}sys.exit(sequence.main(sys.argv[1:2]))", policy, machine]
    done = subprocess.run(command, input=commands, cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, (place / "ran").exists()) == ((REFUSED_EXIT, False) if machine else (0, True)), done.stderr


def test_nothing_of_it_outlives_it(sandbox):
    paths = sandbox()
    before = child.descendants()
    leaves = "import os, time\nif os.fork() == 0:\n os.setsid()\n time.sleep(60)\n"
    run(paths, Command([*PYTHON, leaves], str(paths.workspace)))
    assert child.descendants() <= before
    with subprocess.Popen(["sleep", "60"]) as left:  # control: what is left would be seen
        assert child.descendants() - before == {left.pid}
        left.kill()


def test_git_says_which_command_failed(sandbox):
    repository = Repository(sandbox())
    repository.clone("task")
    with pytest.raises(GitRefused, match=r"^git rev-parse ended with 128: "):
        repository._call("rev-parse", "--verify", "no-such-ref")
