"""A whole worker as a process, against a relay that speaks the frames and a broker by script that checks every message it gets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.worker.sandbox import GIT, calls, says

NEW = "\n\ndef double(a):\n    return 2 * a\n"


def names_in(bundle: Path, base: Path, folder: Path) -> list[str]:
    """The files that a hand-in changes."""
    subprocess.run([*GIT, "clone", "-q", "-b", "airlock-base", str(base), str(folder)], check=True)
    subprocess.run([*GIT, "-C", str(folder), "fetch", "-q", str(bundle), "refs/heads/task"], check=True)
    run = subprocess.run(
        [*GIT, "-C", str(folder), "diff", "--name-only", "airlock-base", "FETCH_HEAD"], check=True, capture_output=True, text=True
    )
    return run.stdout.split()


def test_reads_writes_tests_commits_and_hands_in(attempt, place):
    # Given a model that looks, edits, tests, commits and finishes
    run = attempt(
        [
            calls(
                ("list_files", {"path": "."}), ("read_file", {"path": "src/sample/__init__.py"}), ("search_files", {"pattern": r"def \w+"})
            ),
            calls(("edit_file", {"path": "src/sample/__init__.py", "old": "return a + b\n", "new": "return a + b\n" + NEW})),
            calls(
                (
                    "write_file",
                    {
                        "path": "tests/test_double.py",
                        "content": "from sample import double\n\ndef test_double():\n    assert double(4) == 8\n",
                    },
                )
            ),
            calls(("run_tests", {})),
            calls(("ask_master", {"question": "Which colour?", "options": ["red", "blue"]})),
            calls(("git_commit", {"message": "Double numbers"})),
            calls(("finish", {"summary": "Added double."})),
        ]
    ).run()
    # Then the tools did it, in order
    results = list(run.results())
    assert [result["is_error"] for result in results] == [False] * 8, results
    assert "tests/test_add.py" in results[0]["content"] and "return a + b" in results[1]["content"]
    assert json.loads(results[2]["content"])["matches"] == [
        "src/sample/__init__.py:1:def add(a, b):", "tests/test_add.py:4:def test_add():"]  # fmt: skip
    tested = json.loads(results[5]["content"])
    assert (tested["passed"], tested["failed"], tested["exit_code"], tested["problem"]) == (2, 0, 0, None)
    assert json.loads(results[6]["content"]) == {"answer": "blue", "decided_by": "script"}
    # and the ending names the commit that lies in the bundle
    commit = json.loads(results[7]["content"])["commit"]
    assert run.ending["type"] == "task.complete" and run.ending["payload"] == {"summary": "Added double.", "commit": commit}
    heads = subprocess.run(["git", "bundle", "list-heads", str(run.paths.handin)], check=True, capture_output=True, text=True).stdout
    assert heads.split() == [commit, "refs/heads/task"]
    assert names_in(run.paths.handin, run.paths.bundle, place / "check") == ["src/sample/__init__.py", "tests/test_double.py"]
    # and numbers have no gap, the artifact came, heartbeats came, the key is gone
    assert [message["seq"] for message in run.broker.received] == list(range(1, len(run.broker.received) + 1))
    assert run.broker.of("artifact")[0]["payload"]["data"]["passed"] == 2
    assert run.broker.of("heartbeat") and not run.paths.key.exists()
    assert "Landlock" in run.broker.of("progress")[0]["payload"]["step"]


def test_without_a_commit_there_is_no_handin(attempt):
    run = attempt([calls(("write_file", {"path": "a.txt", "content": "x"})), says("I looked.")]).run()
    assert run.ending["payload"]["commit"] is None and not run.paths.handin.exists()
    assert "a.txt" in run.ending["payload"]["summary"], "what is lost is named"


def test_bad_calls_get_a_remedy_and_never_crash(attempt):
    bad = [
        ("read_fil", {"path": "x"}), ("read_file", {}), ("read_file", {"path": 3}), ("read_file", {"path": "x", "y": 1}), ("read_file", "x"),
        ("write_file", {"path": ".git/hooks/pre-commit", "content": "x"}), ("write_file", {"path": "../x", "content": "x"}),
        ("edit_file", {"path": "src/sample/__init__.py", "old": "absent", "new": ""}), ("list_files", {"path": "absent"}),
        ("search_files", {"pattern": "("}), ("ask_master", {"question": "q", "urgency": "now"}), ("git_commit", {"message": " "}),
        ("git_commit", {"message": "nothing was written"}), (None, None), ({"a": 1}, []), ("write_file", {"path": "s", "content": "\ud800"}),
    ]  # fmt: skip
    run = attempt([calls(*bad), calls(("finish", {"summary": "done"}))]).run()
    results = list(run.results())
    assert len(results) == len(bad) and all(result["is_error"] for result in results), results
    assert "Did you mean read_file?" in results[0]["content"]
    for result in results:
        assert len(result["content"]) > 30


def test_capabilities_bind_tests_and_commits(attempt):
    run = attempt([calls(("run_tests", {}), ("git_commit", {"message": "m"})), says("ok")], capabilities=()).run()
    assert ["'test'" in result["content"] or "'git-commit'" in result["content"] for result in run.results()] == [True, True]


@pytest.mark.slow
def test_an_endless_pattern_is_ended_and_heartbeats_go_on(attempt):
    files = {"a.txt": "a" * 40 + "!\n", "test_a.py": "def test_a(): pass\n"}
    run = attempt([calls(("search_files", {"pattern": r"(a+)+$"})), says("ok")], files=files).run()
    assert "simpler pattern" in next(run.results())["content"]
    assert len(run.broker.of("heartbeat")) >= 6
