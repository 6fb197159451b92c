"""Controls of the checks beside this file: a table without its bounds, a role with more rights, a policy without its forbids. Each is seen."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from include.database.unit_of_work import transaction
from include.policy import cedar
from include.tasks import rules
from include.tasks.models import Failure
from tests import test_database, test_policy, test_transitions
from tests.test_database import goal_run  # noqa: F401 - a fixture


def test_control_caps_that_nobody_asks_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def uncapped(failure: Failure, reason: str, history: rules.History, attempts: int, infrastructure_attempts: int) -> rules.Next:
        return rules.after_failure(failure, reason, history, 10**6, 10**6)

    monkeypatch.setattr(test_transitions, "after_failure", uncapped)
    with pytest.raises(AssertionError):
        test_transitions.test_attempts_are_bounded_for_every_failure_and_count()


@pytest.mark.parametrize("waits", [(15, 30, 60, 600), (60, 15, 30), (0,)], ids=["too long", "shrinking", "none"])
def test_control_other_delays_are_seen(monkeypatch: pytest.MonkeyPatch, waits: tuple[int, ...]) -> None:
    monkeypatch.setitem(rules.CLASSES, Failure.MODEL_AWAY, rules.CLASSES[Failure.MODEL_AWAY]._replace(waits=waits))
    with pytest.raises(AssertionError):
        test_transitions.test_delays_grow_with_failures_in_a_row_and_are_bounded()
    with pytest.raises(AssertionError):
        test_transitions.test_an_endpoint_that_stays_away_ends_in_bounded_time()


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("airflow", "SELECT * FROM attempt_keys"),
        ("broker", "DELETE FROM model_calls"),
        ("warden", "SELECT * FROM transcripts"),
        ("gatekeeper", "SELECT * FROM leases"),
        ("cli", "SELECT * FROM attempt_keys"),
    ],
)
def test_control_a_role_that_has_more_rights_is_seen(goal_run: str, role: str, statement: str) -> None:  # noqa: F811
    with transaction("owner") as connection:
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO airlock_{role}")  # type: ignore[call-overload]
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_database.test_a_role_may_do_only_its_job(goal_run, role, statement)


@pytest.mark.parametrize("rule", test_policy.BAD)
def test_control_a_policy_without_a_forbid_is_seen(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    folder = Path(cedar.__file__).parent
    text = (folder / "admission.cedar").read_text()
    without = re.sub(rf'@id\("{rule}"\).*?;\n', "", text, flags=re.DOTALL)
    broken: Any = cedar.parse(without, (folder / "admission.cedarschema").read_text())
    monkeypatch.setattr(cedar, "load", lambda _: broken)
    test_policy.test_a_good_task_is_let_in()
    with pytest.raises(AssertionError):
        test_policy.test_each_rule_and_every_combination_forbids((rule,))
