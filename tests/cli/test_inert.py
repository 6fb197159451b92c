"""Text of models, workers and repositories is inert wherever it is printed or logged: every printing command, and a step's log."""

from __future__ import annotations

import ast
import io
import json
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from include import inert
from include.cli import audit, person, progress, result
from include.gate.models import Finding
from include.governance.models import LoggedEntry, PastNotice
from include.settings import ROOT, Settings
from include.tasks.models import GoalRunState, TaskRunState
from include.views.models import GoalLine, GoalView, TaskView, VerdictView

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN = [
    "\x1b[31mred\x1b[0m", "\x1b[2J\x1b[H", "\x9b31m", "\x1b]8;;https://evil.invalid\x1b\\here\x1b]8;;\x1b\\", "\x1b]0;title\x07", "a\x07b",
    "pass\x08\x08\x08\x08fail", "FAILED\rgreen ", "green\r\nGoal COMPLETED", "x\ny", "x\u2028y\u2029z\x85", "\u202egnp.exe", "\u2066a\u2069",
    "a\u200bb", "\ufeffa", "\u00adsoft", "\ud800", "a\udfffb", "\x00", "\x7f", "\U000e0041\U000e0042", "\u3164", "a\u034fb", "\U000e0101",
]  # fmt: skip
MARKUP = ["[red]x[/red]", "[link=https://evil.invalid]x[/link]", "[/]", "x\\", ":smile:", "{0}", "%s %d %(a)s"]


@pytest.fixture(scope="session")
def naughty(corpora: Path) -> list[str]:
    return [*json.loads((corpora / "blns" / "blns.json").read_text()), *OWN, *MARKUP]


def acts(shown: str, allowed: str = "\n") -> list[str]:
    """The characters in it that act on a terminal or cannot be seen: controls, formats, surrogates, line and paragraph ends."""
    return [each for each in shown if each not in allowed and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")]


def goal(text: str) -> GoalView:
    """A goal run whose every text is this one; unchecked, as some of these could not even be stored."""
    task = TaskView.model_construct(key="a", title=text, state=TaskRunState.ESCALATED, reason=text, epoch=1, step=text, attempt_state=text)
    verdict = VerdictView.model_construct(
        key="a", epoch=1, suite="change", tree="t", green=False, findings=(Finding.model_construct(expectation="tests", message=text),)
    )
    values: dict[str, Any] = {name: text for name, field in GoalView.model_fields.items() if field.annotation in (str, str | None)}
    values |= {"run": "g1", "dag_id": "d", "run_id": "r", "state": GoalRunState.FAILED, "base_commit": None, "landed_commit": None}
    notice = PastNotice.model_construct(kind="warning", task_run=None, words=text, created_at=NOW)
    figures = {"spent_micro": 1, "tokens": 1, "offline": False, "wall_s": 1.0, "budget_micro": 1}
    return GoalView.model_construct(**values, **figures, tasks=(task,), verdicts=(verdict,), notices=(notice,))


def drawn(text: str) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(progress.table(goal(text)))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def listed(text: str) -> str:
    line = GoalLine.model_construct(run=None, state=None, repository=text, created_at=NOW, title=text)
    return result.row(line)


def audited(text: str) -> str:
    detail = {"reason": text, "rules": [text], "path": text}
    return audit.row(LoggedEntry.model_construct(position=1, at=NOW, actor=text, action="a", subject=text, detail=detail))


SHOWN: dict[str, Callable[[str], str]] = {
    "goal show": drawn,
    "progress on a terminal": drawn,
    "progress in lines": lambda text: "\n".join(progress.lines(goal(text), {})),
    "the report": lambda text: "\n".join(result.lines(Settings(api_port=1), goal(text))),
    "goal list": listed,
    "audit log": audited,
}


def loud(shown: Callable[[str], str], texts: list[str]) -> list[str]:
    return [text for text in texts if acts(shown(text))]


@pytest.mark.parametrize("command", SHOWN)
def test_nothing_that_acts_leaves_a_printing_command(naughty: list[str], command: str) -> None:
    assert loud(SHOWN[command], naughty) == []


@pytest.mark.parametrize("command", SHOWN)
def test_control_without_it_some_leave(naughty: list[str], command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert, "line", lambda text: text)
    assert len(loud(SHOWN[command], naughty)) >= 10


def test_no_text_makes_a_line_of_its_own() -> None:
    for text in ("x\nGoal COMPLETED: forged", "x\r\nGoal COMPLETED: forged", "x\u2028Goal COMPLETED: forged"):
        said = result.lines(Settings(api_port=1), goal(text))
        assert not [line for line in said if line.startswith("Goal COMPLETED") or "\n" in line]
        assert not [line for line in progress.lines(goal(text), {}) if line.startswith("Goal COMPLETED") or "\n" in line]


@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_shown_as_it_was_written(text: str) -> None:
    assert drawn(text).count(text) == 3  # the goal's title, the task's, and what it does


def test_whatever_is_printed_goes_through_one_place(naughty: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    for text in naughty:
        person.tell(text)
        person.say(f"airlock: {text}")
    said = capfd.readouterr()
    assert acts(said.out) == acts(said.err) == []
    assert said.out.count("\n") == said.err.count("\n") == len(naughty)


def test_nothing_else_in_the_command_line_prints() -> None:
    """What a command prints goes through ``person``; ``__main__`` prints only names of keys, before anything is loaded."""

    def prints(path: Path) -> bool:
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        return any(isinstance(each, ast.Name) and each.id == "print" for each in calls)

    assert sorted(path.name for path in (ROOT / "include" / "cli").glob("*.py") if prints(path)) == ["__main__.py", "person.py"]


def test_json_stays_exact(naughty: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    person.print_json(naughty)
    printed = capsys.readouterr().out
    assert json.loads(printed) == naughty and printed.isascii() and acts(printed) == []


def test_text_that_nobody_must_fear_stays() -> None:
    for text in ("Add rates (bytes a second)", "größer – 日本語 ✓ 👍🏽 ❤️", "tests/test_a.py::test_b[1-2]"):
        assert inert.line(text) == inert.lines(text) == inert.words(text) == inert.short(text, 80) == text
    assert inert.short("a " * 100, 30) == "a a a a a a a a a … a a a a a"
    assert inert.value({"a\x1b": ["b\x07\nc", 1, None, True]}) == {"a\ufffd": ["b\ufffd\nc", 1, None, True]}
