"""Controls of what needs no running Airflow: a watch that an outage ends, text that is not made inert, and a doubled rework are seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import jinja2
import pytest

from include.flow import goal_dag, watch
from include.settings import Settings
from tests.flow import test_goal_dag, test_rework, test_watch
from tests.flow.test_rework import END, attempt
from tests.flow.test_watch import mine  # noqa: F401 - a fixture


async def _once(self: watch.Watch) -> None:
    """The watch without what waits an outage out."""
    async with await self._connect() as connection:
        for channel in watch.CHANNELS:
            await connection.execute(f"LISTEN {channel}")
        while True:
            await self._tick(connection)


def test_control_a_watch_that_an_outage_ends_is_seen(mine: Settings, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(watch.Watch, "_run", _once)
    with pytest.raises(AssertionError, match="stamps come again"):
        test_watch.test_an_outage_of_postgresql_is_waited_out(mine)


@pytest.mark.parametrize("text", ["{{ 7*7 }}", "{% for x in () %}"])
def test_control_text_that_is_not_made_inert_is_seen(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goal_dag, "_inert", lambda text: text)
    with pytest.raises((AssertionError, jinja2.TemplateError)):
        test_goal_dag.test_text_reaches_no_templated_field(text)


def test_control_text_in_a_templated_field_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_goal_dag.probe.ProbeStep, "words", "{{ 7*7 }}", raising=False)
    test_goal_dag.test_text_reaches_no_templated_field("{{ 7*7 }}")  # it is there, and no template
    monkeypatch.setattr(test_goal_dag.probe.ProbeStep, "template_fields", ("words",))
    with pytest.raises(AssertionError):
        test_goal_dag.test_text_reaches_no_templated_field("{{ 7*7 }}")


RAN = [*attempt("a", 1, "admit", "start", "lease"), *attempt("a", 2), *attempt("b", 1), *END]


def _holds(ran: list[tuple[str, int]] = RAN, state: str = "success", seen: set[str] | None = None) -> None:
    """What the tests of rework hold after each scene, asked of these facts."""
    airflow: Any = SimpleNamespace(probes=lambda _: ran, state=lambda *_: state, states={"r": seen or {"success"}})
    test_rework.holds_for_ever(airflow, "d", "r")


@pytest.mark.parametrize(
    "wrong",
    [
        {"ran": [*RAN[:-3], *attempt("a", 3), *END]},
        {"ran": [*RAN[:8], *attempt("a", 2), *RAN[8:]]},
        {"ran": [*RAN[:-3], *attempt("b", 1), *END]},
        {"ran": [*RAN, ("report", 0)]},
        {"state": "failed"},
        {"seen": {"success", "upstream_failed"}},
    ],
    ids=["a third attempt", "one attempt twice", "the next task twice", "a second report", "a red run", "a step downstream failed"],
)
def test_control_a_doubled_or_failed_rework_is_seen(wrong: dict[str, Any]) -> None:
    _holds()
    with pytest.raises(AssertionError):
        _holds(**wrong)
