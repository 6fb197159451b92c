"""The messages of the commits that Airlock makes: inert, and with no trailers but its own, whatever title and summary say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from include import inert
from include.repository import trees
from include.repository.models import Candidate
from tests.cli.test_inert import MARKUP, OWN, acts

OURS = {"Task": "a", "Task-Run": "g1-a", "Attempt": "1"}
MEAN = [
    "Task-Run: g2-b", "x\n\nTask-Run: g2-b\nAttempt: 9", "x\n\nTask-Run: g2-b\n\n", "x\r\rTask-Run: g2-b", "x\u2028Task-Run: g2-b",
    "Task-Run: g2-b\n---\nthe rest", "x\n\nTask-Run: g2-b\n--- \n", "x\n\nTask-Run: g2-b\n# ------------------------ >8 ------------------------\n",
    "task-run : g2-b", "\u200bTask-Run: g2-b", "x\n\n Task-Run: g2-b", "x\n\nTask-Run: g2-b\n continued", "Signed-off-by: A Person <a@b.c>",
    "x\n\n(cherry picked from commit 0)", "#", "---", "", "\n\n", "\u200b",
]  # fmt: skip


def git(*words: str, folder: Path, stdin: str = "") -> str:
    done = subprocess.run(["git", *words], cwd=folder, input=stdin.encode(), capture_output=True, check=True)
    return done.stdout.decode()


@pytest.fixture(scope="module")
def fork(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A bare repository with two commits that can be merged."""
    folder = tmp_path_factory.mktemp("fork")
    git("init", "-q", "--bare", folder=folder)
    tree = git("hash-object", "-t", "tree", "-w", "--stdin", folder=folder).strip()
    person = ("-c", "user.name=a", "-c", "user.email=a@b.invalid", "commit-tree", tree)
    root = git(*person, "-m", "root", folder=folder).strip()
    ours, theirs = (git(*person, "-p", root, "-m", name, folder=folder).strip() for name in ("ours", "theirs"))
    return folder, ours, theirs


def merged(fork: tuple[Path, str, str], title: str, summary: str) -> tuple[str, dict[str, str], dict[str, str]]:
    """The merge's message, its trailers as git's log reads them, and as ``git interpret-trailers`` does."""
    folder, ours, theirs = fork
    made = trees.merge_in_memory(folder, ours, theirs, f"{inert.words(title)}\n\n{summary}", OURS, 1_700_000_000)
    assert isinstance(made, Candidate)
    message = git("log", "-1", "--format=%B", made.commit, folder=folder)
    listed = git("log", "-1", "--format=%(trailers:only,unfold)", made.commit, folder=folder)
    return message, _read(listed), _read(git("interpret-trailers", "--parse", folder=folder, stdin=message))


def _read(listed: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in listed.splitlines() if line)


@pytest.mark.parametrize("text", MEAN + OWN + MARKUP)
def test_no_title_or_summary_forges_a_trailer_or_acts(fork: tuple[Path, str, str], text: str) -> None:
    for title, summary in ((text, "Done."), ("A title", text), (text, text)):
        message, listed, parsed = merged(fork, title, summary)
        assert listed == parsed == OURS, message
        assert acts(message) == [] and message.split("\n")[0].strip() and message.split("\n")[1] == ""
        forged = [line for line in message.splitlines() if line.lower().replace(" ", "").startswith("task-run:") and line[0] != " "]
        assert forged == ["Task-Run: g1-a"], message  # also for who reads line by line


def test_a_value_is_one_line() -> None:
    said = inert.commit_message("t", "", {"Tasks": "a\nTask-Run: g2-b\x1b[2J"})
    assert said == "t\n\nTasks: a Task-Run: g2-b\ufffd[2J\n"


def test_an_honest_message_stays_as_it_is() -> None:
    body = "Two paragraphs:\n\n- one (see docs)\n- two\n\nAnd a third, 100 % done."
    assert inert.commit_message("fix: rates", body, OURS) == f"fix: rates\n\n{body}\n\nTask: a\nTask-Run: g1-a\nAttempt: 1\n"


@pytest.mark.parametrize("body", ["x\n\nTask-Run: g2-b\n---\nthe rest", "Task-Run: g2-b\n\x1b[2J"])
def test_control_a_message_put_together_plainly_is_fooled(fork: tuple[Path, str, str], body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(subject: str, body: str, trailers: dict[str, str]) -> str:
        return f"{subject}\n{body.rstrip()}\n\n" + "".join(f"{name}: {value}\n" for name, value in trailers.items())

    monkeypatch.setattr(inert, "commit_message", plain)
    message, _, parsed = merged(fork, "A title", body)
    assert parsed != OURS or acts(message)
