"""What a step tells Airflow is inert: the lines of its log, its result, its errors, and those of what waits in the triggerer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.sdk.exceptions import AirflowFailException
from structlog.testing import capture_logs

from include import inert
from include.errors import GitFailed
from include.flow.rework_trigger import ReworkTrigger
from include.flow.steps.base import Step, fail
from include.flow.steps.lease import LeaseTrigger
from include.flow.steps.start import StartStep
from include.flow.steps.verify import VerifyStep
from include.flow.waiting import WaitTrigger
from include.gate.models import Finding, Verdict
from include.merge import candidates
from include.tasks.watching import Seen
from tests.cli.test_inert import MARKUP, OWN, acts

TEXTS = [*OWN, *MARKUP, "100% done", "%"]


class Speaks(Step):
    """Tells a text in every way that a step has."""

    text = ""

    def advance(self, context: Any) -> Any:
        """Log it, and give it back."""
        self.log.info(self.text)
        self.log.warning("Rework: %s", self.text)
        self.log.error("%s of %d", self.text, 1)
        return {"title": self.text, "lines": [self.text]}


class Stumbles(Speaks):
    """Ends with an error that quotes it."""

    def advance(self, context: Any) -> Any:
        """Fail as git does."""
        try:
            raise GitFailed(self.text)
        except GitFailed as error:
            raise ValueError(f"{self.text} cannot be read") from error


def speak(step: type[Speaks], text: str) -> Any:
    step.text = text
    return step(task_id="speaks").execute({})


def logged(text: str) -> list[str]:
    """The lines of a step's log that tells this text: a step's, and an attempt's milestones in the triggerer."""
    trigger = LeaseTrigger("a")
    with capture_logs() as found:
        speak(Speaks, text)
        trigger._show(Seen("working", text, milestones=[(1, text)], epoch=1))
        for other in (WaitTrigger("room", ""), ReworkTrigger("", "", "", ""), StartStep(task_id="s", task_key="a")):
            other.log.warning("%s", text)
    lines = [each["event"] for each in found if "outside of the Task Runner" not in each["event"]]  # Airflow's own word to a test
    assert len(lines) == 9
    return lines


def test_a_steps_log_is_inert_and_each_message_one_line() -> None:
    for text in TEXTS:
        assert [line for line in logged(text) if acts(line, allowed="")] == [], text
    assert logged("100% of [red]x[/red]")[:2] == ["100% of [red]x[/red]", "Rework: 100% of [red]x[/red]"]


def test_control_without_it_the_log_is_loud(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert, "line", lambda text: text)
    assert len([text for text in TEXTS if any(acts(line, allowed="") for line in logged(text))]) >= 10


def test_a_steps_result_is_inert(corpora: Path) -> None:
    for text in [*json.loads((corpora / "blns" / "blns.json").read_text()), *TEXTS]:
        result = speak(Speaks, text)
        assert acts(result["title"]) == acts(result["lines"][0]) == []


def chain(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def test_a_steps_errors_are_inert(caplog: pytest.LogCaptureFixture) -> None:
    for text in TEXTS:
        with pytest.raises(ValueError) as stumbled:
            speak(Stumbles, text)
        words = list(chain(stumbled.value))
        assert len(words) == 2 and [each for each in words if acts(each)] == []
        with caplog.at_level(logging.ERROR, "airflow.task"), pytest.raises(AirflowFailException) as failed:
            fail(f"The goal ended: {text}")
        assert acts(str(failed.value)) == []
    assert [each for record in caplog.records if acts(each := record.getMessage(), allowed="")] == []


# -- a verdict, told ---------------------------------------------------------------------------------------------------------------

NAMES = ", ".join(f"tests/test_module_{n}.py::test_number_{n}" for n in range(50))
FINDINGS = (
    Finding(expectation="new_failures", message=f"50 tests fail that do not fail on the base branch: {NAMES}. Mend the code until they pass."),
    Finding(expectation="gone_tests", message="1 tests of the base branch are gone: a\nGreen: \x1b[32mforged. Put them back as they were."),
    Finding(expectation="style", message="A hint.", severity="warning"),
)  # fmt: skip


def verdict(*findings: Finding, green: bool = False) -> Verdict:
    return Verdict(
        id=UUID(int=1), goal_run="g1", task_run="g1-a", epoch=1, tree="f" * 40, suite="change", facts={}, green=green, findings=findings
    )


def told(given: Verdict) -> tuple[list[str], dict[str, Any]]:
    """The lines of the verify step's log, and its XComs."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    with capture_logs() as found:
        VerifyStep(task_id="v", task_key="a")._tell({"ti": ti}, given)
    return [each["event"] for each in found], pushed


def readable(lines: list[str]) -> bool:
    """Each expectation is a line of its own that a page holds, and says at its end what to do."""
    names = [line.split(":")[0] for line in lines[1:]] == [finding.expectation for finding in FINDINGS]
    return names and max(map(len, lines)) <= candidates.LINE + 20 and lines[1].endswith("Mend the code until they pass.")


def test_a_red_verdict_is_a_line_of_the_log_for_each_expectation() -> None:
    lines, pushed = told(verdict(*FINDINGS))
    assert readable(lines)
    assert lines[0] == "Red: tree ffffffffffff did not pass the suite change."
    assert [line.split(":")[0] for line in lines[1:]] == ["new_failures", "gone_tests", "style"]
    assert max(map(len, lines)) <= candidates.LINE + 20 and acts("".join(lines), allowed="") == []
    assert "50 tests fail" in lines[1] and lines[1].endswith("Mend the code until they pass.")  # what was seen, and what to do
    shown = pushed["verdict"]
    assert (shown["green"], shown["suite"], shown["tree"]) == (False, "change", "f" * 40)
    assert [each["expectation"] for each in shown["findings"]] == ["new_failures", "gone_tests", "style"]
    assert shown["findings"][0]["message"] == FINDINGS[0].message  # whole


def test_a_green_verdict_is_told_too() -> None:
    lines, pushed = told(verdict(green=True))
    assert lines == ["Green: tree ffffffffffff passed the suite change."] and pushed["verdict"]["green"] is True


def test_a_red_verdict_is_the_next_workers_prompt_and_one_short_reason() -> None:
    failed = candidates.red(verdict(*FINDINGS))
    assert failed.reason.startswith("The gate is red: 50 tests fail") and "until they pass. 1 tests of the base" in failed.reason
    assert len(failed.reason) <= 2 * candidates.LINE
    head, *lines = failed.feedback.split("\n")
    assert (head, len(lines)) == ("The gate refused your work:", 2)  # a warning refuses nothing
    assert lines[0] == f"- {FINDINGS[0].message}" and lines[1].endswith("Put them back as they were.") and acts(failed.feedback) == []


def test_control_all_findings_in_one_line_run_off_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "told", lambda given: [" ".join(finding.message for finding in given.findings)])
    assert not readable(told(verdict(*FINDINGS))[0])
