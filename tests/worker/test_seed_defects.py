"""Defects that the seeds' worker had (D5 to D8, D15, D20, D23, D25), each as a whole run that would fail with it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
import uuid

import pytest

from include.worker.conversation import Conversation, Timing
from include.worker.envelope import signature
from include.worker.git import Repository
from include.worker.paths import Paths
from tests.kit.scale import patience
from tests.worker.sandbox import GIT, calls, says
from tests.worker.test_whole_run import names_in

QUESTION = calls(("ask_master", {"question": "Which?", "urgency": "blocking"}))
COMMIT = calls(("write_file", {"path": "new.py", "content": "x = 1\n"}), ("git_commit", {"message": "m"}))
FAST = {"resend": 0.2}


def error(kind: str) -> dict:
    return {"stopReason": None, "content": [], "error": {"kind": kind, "message": f"because {kind}"}}


# -- D2, D5: replies find their question, and a timeout is real ------------------------------------------------------------------


def test_d5_replies_reach_their_own_question(attempt):
    # Given two replies in the wrong order and a stray one
    run = attempt([QUESTION, says("done")])
    answer = run.broker.handle

    def handle(message):
        if message["type"] == "question":
            run.broker.send("answer", {"answer": "stray", "decidedBy": "x"}, str(uuid.uuid4()))
        answer(message)

    run.broker.handle = handle
    run.run()
    assert json.loads(next(run.results())["content"])["answer"] == "blue"


def test_d5_no_answer_is_a_result_after_the_timeout(attempt):
    run = attempt([QUESTION, says("done")], timing={"question": 0.5, "resend": 0.2})
    run.broker.hold.add("question")
    run.run()
    result = next(run.results())
    assert result["is_error"] and "Decide yourself" in result["content"]
    assert run.broker.duplicates >= 1, "it was sent again before, byte for byte"


def test_d2_resends_are_the_same_bytes_until_answered(attempt):
    run = attempt([None, says("never asked for")], timing=FAST)
    run.start()
    run.wait_for(lambda: run.broker.duplicates >= 3)  # Broker compares the bytes
    request = run.broker.of("llm.request")[0]
    run.broker.send("llm.response", says("late"), request["id"])
    assert run.wait() == 0
    assert run.ending["payload"]["summary"] == "late" and run.broker.requests == 1


# -- D6: a model call has its own timeout, and an error is an outcome -----------------------------------------------------------------


@pytest.mark.slow
def test_d6_a_model_call_may_take_longer_than_a_question(attempt):
    def slow(_):
        time.sleep(2)
        return says("slow but good")

    run = attempt([slow], timing={"question": 0.5, "resend": 1}).run()
    assert run.ending["payload"]["summary"] == "slow but good"
    assert Timing().model > 600 > Timing().question


@pytest.mark.parametrize(
    ("kind", "failure", "asked"),
    [("budget", "budget", 1), ("model", "model", 1), ("away", "away", 1), ("unknown", "away", 2), ("lost", "away", 10)],
)
def test_d6_an_error_reply_is_an_ending(attempt, kind, failure, asked):
    run = attempt([error(kind)] * max(2, asked)).run()
    assert run.ending["type"] == "task.failed" and run.ending["payload"] == {"kind": failure, "reason": f"because {kind}"}
    requests = run.broker.of("llm.request")
    assert len(requests) == asked and len({each["idempotencyKey"] for each in requests}) == asked
    assert {each["payload"]["turn"] for each in requests} == {1}


def test_d6_an_unknown_error_is_asked_once_more(attempt):
    assert attempt([error("unknown"), says("second time")]).run().ending["payload"]["summary"] == "second time"


# -- D7, D8: control messages are the broker's, and handled once ----------------------------------------------------------------------


def test_d7_forged_control_messages_change_nothing(attempt):
    run = attempt([QUESTION, says("done")])
    answer = run.broker.handle

    def handle(message):
        if message["type"] == "question":
            cancel = run.broker.send
            cancel("task.cancel", {"reason": "forged"}, key=run.keys.out_key)  # signed with the worker's own key
            cancel("task.cancel", {"reason": "old"}, epoch=1)  # of another attempt
            run.broker.deliver("0" * 64, b'{"type":"task.cancel"}')
            body = b'{"a":NaN}'
            run.broker.deliver(signature(run.keys.in_key, run.keys.task_run, "in", body), body)
            run.broker.deliver(signature(run.keys.in_key, "other-task", "in", body), body)
        answer(message)

    run.broker.handle = handle
    run.run()
    assert run.ending["type"] == "task.complete"
    assert run.stderr.count("was refused") == 5


def test_d8_the_assignment_is_handled_once(attempt):
    run = attempt([calls(("run_tests", {})), says("done")])
    run.broker.assign_task()
    tag, body = run.relay.inbox[0]
    run.broker.deliver(tag, body)  # the same entry again
    run.broker.assign["capabilities"] = []
    run.start()
    assert run.wait() == 0
    assert run.broker.requests == 2 and len(run.broker.of("task.complete")) == 1


# -- D15, D25: what is committed, and where --------------------------------------------------------------------------------------------

MESSY = """
import pathlib, subprocess
def test_mess():
    pathlib.Path("canary-secret.txt").write_text("AIRLOCK-CANARY")
    pathlib.Path("debug.log").write_text("x")
    hooks = pathlib.Path(".git/hooks")
    for folder in (hooks, pathlib.Path("../git/hooks")):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "pre-commit").write_text("#!/bin/sh\\ntouch hook-ran\\n")
        except OSError:
            pass
"""


def test_d15_only_what_the_tools_wrote_is_committed(attempt, place):
    write = calls(("write_file", {"path": "new.py", "content": "x = 1\n"}), ("run_tests", {}), ("git_commit", {"message": "m"}))
    run = attempt([write, says("done")], files={"test_mess.py": MESSY}).run()
    assert json.loads(list(run.results())[1]["content"])["passed"] == 1
    assert names_in(run.paths.handin, run.paths.bundle, place / "check") == ["new.py"]
    assert (run.paths.repo / "canary-secret.txt").exists(), "the mess was there"
    assert b"AIRLOCK-CANARY" not in run.paths.handin.read_bytes() and not (run.paths.repo / "hook-ran").exists()


def test_d15_control_git_add_all_takes_the_canary(place):
    """Negative control: the seed's own way commits it."""
    subprocess.run([*GIT, "init", "-q", str(place / "r")], check=True)
    (place / "r" / "canary-secret.txt").write_text("AIRLOCK-CANARY")
    subprocess.run([*GIT, "-C", str(place / "r"), "add", "."], check=True)
    assert b"canary" in subprocess.run([*GIT, "-C", str(place / "r"), "ls-files"], capture_output=True, check=True).stdout


def test_d25_a_refused_stage_fails_the_tool(attempt):
    ignored = calls(("write_file", {"path": "trace.log", "content": "x"}), ("git_commit", {"message": "m"}))
    run = attempt([ignored, says("done")]).run()
    result = list(run.results())[1]
    assert result["is_error"] and "ignored" in result["content"] and run.ending["payload"]["commit"] is None


def test_d25_only_the_attempts_own_branch(attempt):
    def move(_):
        subprocess.run(["git", f"--git-dir={run.paths.git}", "branch", "-m", "task-other"], check=True)
        return COMMIT

    run = attempt([move, says("done")])
    run.start()
    run.wait()
    result = list(run.results())[1]
    assert result["is_error"] and "not on this attempt's branch" in result["content"]


def test_deletions_of_written_files_are_committed(sandbox, apart):
    apart(deletions_are_committed, sandbox())


def deletions_are_committed(paths: Paths) -> None:
    repository = Repository(paths)
    repository.clone("task")
    (paths.repo / "a.txt").write_text("a")
    first = repository.commit(["a.txt"], "add")
    (paths.repo / "a.txt").unlink()
    second = repository.commit(["a.txt", "never-there.txt"], "remove")
    assert first and second and first != second and repository.commit(["a.txt"], "again") is None
    # a name that looks like an option, and one that looks like a pattern
    for name in ("--all", ":(top)*"):
        (paths.repo / name).write_text("x")
    assert repository.commit(["--all", ":(top)*"], "--amend")
    shown = subprocess.run(
        ["git", f"--git-dir={paths.git}", "show", "--name-only", "--format=%s"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["--amend", "--all", ":(top)*"]


# -- D20: cancel ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["message", "signal"])
def test_d20_cancel_while_waiting_ends_with_a_message(attempt, how):
    run = attempt([None])
    run.start()
    run.wait_for(lambda: run.broker.of("llm.request"))
    started = time.monotonic()
    run.broker.send("task.cancel", {"reason": "no longer wanted"}) if how == "message" else run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 0
    assert time.monotonic() - started < patience(3)
    assert run.ending["type"] == "task.failed" and run.ending["payload"]["kind"] == "cancelled"


def test_d20_cancel_in_a_test_run_kills_it(attempt):
    run = attempt([calls(("run_tests", {}))], files={"test_slow.py": "import time\ndef test_slow(): time.sleep(1000)\n"})
    run.start()
    run.wait_for(lambda: any("runs the tests" in each["payload"]["step"] for each in run.broker.of("progress")))
    time.sleep(1)
    started = time.monotonic()
    run.broker.send("task.cancel", {"reason": "stop"})
    assert run.wait() == 0 and time.monotonic() - started < patience(3)
    assert run.ending["payload"]["kind"] == "cancelled"


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_d20_cancel_in_a_commit_leaves_a_consistent_repository(attempt, place, delay):
    def cancel_soon(_):
        threading.Timer(delay, lambda: run.broker.send("task.cancel", {"reason": "stop"})).start()
        return COMMIT

    run = attempt([cancel_soon, None])
    run.start()
    assert run.wait() == 0
    assert run.ending["type"] == "task.failed" and run.ending["payload"] == {"kind": "cancelled", "reason": "stop"}
    git = ["git", f"--git-dir={run.paths.git}", f"--work-tree={run.paths.repo}"]
    subprocess.run([*git, "fsck", "--strict"], check=True, capture_output=True)
    assert not list(run.paths.git.rglob("*.lock"))
    if run.paths.handin.exists():  # the commit was made: what the next attempt may go on from is whole
        assert names_in(run.paths.handin, run.paths.bundle, place / "check") == ["new.py"]


# -- D23: every stop reason ends or continues by rule -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("turns", "ending", "kind"),
    [
        ([says("t", "end_turn")], "task.complete", None),
        ([says("t", "stop_sequence")], "task.complete", None),
        ([says("t", "refusal")], "task.failed", "model"),
        ([says("t", "model_context_window_exceeded")], "task.failed", "model"),
        ([says("t", "a_new_reason")], "task.failed", "model"),
        ([{"stopReason": None, "content": []}], "task.failed", "model"),
        ([says("t", "max_tokens")] * 9, "task.failed", "gave_up"),
        ([says("t", "pause_turn")] * 9, "task.failed", "gave_up"),
        ([says("t", "tool_use")] * 9, "task.failed", "gave_up"),
        ([says("t", "max_tokens"), says("t", "pause_turn"), says("t")], "task.complete", None),
        ([calls(("finish", {"summary": "cut"}), stop="max_tokens"), says("t")], "task.complete", None),
        ([calls(("list_files", {"path": "."}), stop="end_turn"), says("t")], "task.complete", None),
        ([{"stopReason": "end_turn", "content": [{"type": "thinking"}, {"strange": 1}]}], "task.complete", None),
    ],
)
def test_d23_every_stop_reason_ends_or_goes_on(attempt, turns, ending, kind):
    run = attempt(list(turns)).run()
    assert run.ending["type"] == ending and run.ending["payload"].get("kind") == kind
    assert run.broker.requests <= 3
    for given, turn in zip(run.broker.of("llm.request")[1:], turns, strict=False):
        asked = [block["id"] for block in turn["content"] if block["type"] == "tool_use"]
        assert [result["tool_use_id"] for result in given["payload"]["results"]] == asked, "each call has its result"


# -- the link ---------------------------------------------------------------------------------------------------------------------------


def test_a_relay_that_breaks_and_says_later_loses_nothing(attempt):
    run = attempt([COMMIT, says("done")], timing=FAST)
    run.relay.drop_after_put = {2, 3, 6}  # taken, but the reply never came: put again
    run.relay.status_for_put = lambda n: 2 if n in (4, 5, 9) else 0
    run.run()
    assert run.ending["type"] == "task.complete" and run.broker.duplicates >= 3
    assert [message["seq"] for message in run.broker.received] == list(range(1, len(run.broker.received) + 1))


def test_streams_lost_before_the_ending_are_filled_again(attempt):
    """The outbox loses everything once, after the broker read none of it: the ending brings all lower numbers along."""
    run = attempt([], timing=FAST)
    conversation = Conversation(run.keys, run.paths, Timing(resend=0.1))
    run.relay.start()
    for step in range(5):
        conversation.tell("progress", {"status": "working", "step": str(step)})
    with run.relay.changed:
        assert len(run.relay.outbox) == 5
        run.relay.outbox.clear()  # the streams are wiped
    run.broker.start()
    conversation.start()
    run.broker.hold.add("task.complete")
    threading.Timer(0.5, lambda: run.broker.send("receipt", {}, run.broker.of("task.complete")[0]["id"])).start()
    conversation.end("task.complete", {"summary": "s", "commit": None}, 10)
    assert sorted(message["seq"] for message in run.broker.received) == [1, 2, 3, 4, 5, 6]
    conversation.tell("progress", {"status": "working", "step": "after"})
    assert all(message["seq"] <= 6 for message in run.broker.received), "nothing follows an ending"


def test_a_crash_is_told(attempt):
    run = attempt([says("x")])
    run.paths.bundle.write_bytes(b"no bundle")
    run.start()
    assert run.wait() == 0
    assert run.ending["payload"]["kind"] == "crashed" and "git clone" in run.ending["payload"]["reason"]


def test_large_results_fit_a_message(attempt):
    files = {"big.txt": "ä\x01" * 200_000, "test_a.py": "def test_a(): pass\n"}
    many = calls(*[("read_file", {"path": "big.txt"})] * 40)
    run = attempt([many, says("done")], files=files).run()
    results = list(run.results())
    assert len(results) == 40 and all("[cut here" in result["content"] for result in results)
