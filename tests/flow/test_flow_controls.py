"""Controls of what needs no running Airflow: a watch that an outage ends, and text that is not made inert, are seen."""

from __future__ import annotations

import jinja2
import pytest

from include.flow import goal_dag, watch
from include.settings import Settings
from tests.flow import test_goal_dag, test_watch
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
