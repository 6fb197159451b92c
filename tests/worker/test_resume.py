"""What a worker leaves when its sandbox is killed, and how it goes on with an older attempt's conversation."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from include.worker.child import descendants
from tests.kit.waiting import poll
from tests.worker.sandbox import GIT, Attempt, calls, says

FIRST = calls(("write_file", {"path": "first.py", "content": "x = 1\n"}), ("git_commit", {"message": "first"}))


def tip_of(run: Attempt) -> str | None:
    """The commit in the hand-in; None if the file is no whole bundle."""
    with tempfile.TemporaryDirectory() as folder:  # a fresh clone: one that has the objects already does not read the bundle
        subprocess.run([*GIT, "clone", "-q", "-b", "airlock-base", str(run.paths.bundle), folder], check=True)
        fetch = [*GIT, "-C", folder, "fetch", "-q", str(run.paths.handin), "refs/heads/task"]
        if subprocess.run(fetch, capture_output=True, check=False).returncode:
            return None
        return subprocess.run([*GIT, "-C", folder, "rev-parse", "FETCH_HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def commits(run: Attempt) -> list[str]:
    return [json.loads(each["content"])["commit"] for each in run.results() if '"commit"' in each["content"]]


def kill(run: Attempt) -> None:
    """As the end of a sandbox: SIGKILL for the worker and all that it started."""
    assert run.process is not None
    run.process.send_signal(signal.SIGSTOP)  # it goes no further while what is below it is looked for
    below = [pid for pid in descendants() if parent_line(pid, run.process.pid)]
    run.process.send_signal(signal.SIGKILL)
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    run.process.wait()


def parent_line(pid: int, above: int) -> bool:
    while pid > 1:
        if pid == above:
            return True
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return False


def test_the_hand_in_stands_after_each_commit(attempt):
    second = calls(("write_file", {"path": "second.py", "content": "y = 1\n"}), ("git_commit", {"message": "second"}))
    run = attempt([FIRST, second, None])
    run.start()
    seen = []
    for number in (2, 3):
        run.wait_for(lambda: len(run.broker.of("llm.request")) >= number)  # noqa: B023 - called at once
        seen.append(tip_of(run))
    kill(run)
    assert seen == commits(run) and len(set(seen)) == 2 and tip_of(run) == seen[-1]


BIG = ["\n".join(secrets.token_hex(500) for _ in range(900)) for _ in range(5)]  # 0.9 MB each, that git can only make half as large
SLOWLY = """
from include.worker import git
def in_place(self):
    part = self._paths.workspace / "whole"
    self._call("bundle", "create", "--quiet", str(part), "airlock-base..task")
    import time
    with open(self._paths.handin, "wb", buffering=0) as file:
        content = part.read_bytes()
        for at in range(0, len(content), 4096):
            file.write(content[at:at + 4096])
            time.sleep(0.02)
    part.unlink()
git.Repository.keep = in_place
"""


def killed_while_writing(attempt, before: str) -> tuple[Attempt, str | None]:
    """A run that is killed while the bundle of its second, large commit is being written."""
    large = [("write_file", {"path": f"big{n}.txt", "content": text}) for n, text in enumerate(BIG)]
    run = attempt([FIRST, calls(*large, ("git_commit", {"message": "second"})), None])
    run.start(before=before)
    run.wait_for(lambda: len(run.broker.of("llm.request")) >= 2)
    whole = tip_of(run)
    at_first = run.paths.handin.stat().st_mtime_ns

    def a_part_is_there() -> bool:
        growing = list(run.paths.workspace.glob("handin.part*"))
        changed = run.paths.handin.stat().st_mtime_ns != at_first
        return bool(growing or (changed and 0 < run.paths.handin.stat().st_size < 2_000_000))

    poll(a_part_is_there, 60, 0.001)  # of the second bundle
    kill(run)
    assert len(run.broker.of("llm.request")) == 2, "the second commit was told before the kill: it came too late"
    return run, whole


@pytest.mark.parametrize("_round", range(3))
def test_a_kill_9_while_it_is_written_leaves_the_last_whole_one(attempt, _round):
    run, whole = killed_while_writing(attempt, before="")
    assert whole is not None and tip_of(run) == whole == commits(run)[0]


def test_a_kill_9_breaks_a_hand_in_that_is_written_in_place(attempt):
    """Negative control of the test above."""
    run, whole = killed_while_writing(attempt, before=SLOWLY)
    assert whole is not None and tip_of(run) is None


def test_a_commit_that_cannot_be_bundled_is_a_commit_all_the_same(attempt):
    run = attempt([FIRST, says("done")])
    run.paths.workspace.joinpath("handin.part.lock").write_text("in the way")  # git will not write the bundle
    run.start()
    run.wait()
    assert "is_error" in (result := list(run.results())[1]) and not result["is_error"] and commits(run)
    assert run.ending["payload"]["kind"] == "crashed", "the last hand-in is no courtesy"


def test_a_resumed_attempt_asks_for_its_first_turn_with_no_results(attempt):
    run = attempt([FIRST, says("done")], firstTurn=4).run()
    asked = [message["payload"] for message in run.broker.of("llm.request")]
    assert [each["turn"] for each in asked] == [4, 5]
    assert asked[0]["results"] == [] and len(asked[1]["results"]) == 2
    assert run.ending["type"] == "task.complete" and run.ending["payload"]["commit"] == commits(run)[0]


def test_silence_of_the_broker_is_no_fault_of_the_work(attempt):
    run = attempt([None, None], timing={"model": 0.5, "resend": 0.2})
    run.start()
    run.wait()
    assert run.ending["payload"]["kind"] == "away" and "no answer to llm.request" in run.ending["payload"]["reason"]
