"""Policy: a table of cases, the three guards against failing open, and that a forbid never permits more."""

from __future__ import annotations

import itertools

import pytest

from include.errors import Forbidden
from include.policy import cedar
from include.policy.deciders import CHAINS, first_answer
from include.policy.models import AdmissionRequest, Decision, UseRequest
from include.policy.service import judge

GOOD = AdmissionRequest(
    agent="jarvis", agent_capabilities=("test", "git-commit"), task_run="g1-a", capabilities=("test",), touches=("src/**",),
    worker="python_developer", worker_known=True, left_micro=1, seconds_left=1,
)  # fmt: skip
BAD = {
    "capability-beyond-agent": {"capabilities": ("test", "pkg-install")},
    "protected-path": {"touches": ("src/**", ".github/workflows/x.yml")},
    "unknown-worker": {"worker_known": False},
    "budget-used-up": {"left_micro": 0},
    "deadline-over": {"seconds_left": 0},
}


def test_a_good_task_is_let_in() -> None:
    decision = judge(GOOD)
    assert (decision.decision, decision.rules) == ("permit", ("admit",))


@pytest.mark.parametrize("rules", [c for n in range(1, 6) for c in itertools.combinations(BAD, n)])
def test_each_rule_and_every_combination_forbids(rules: tuple[str, ...]) -> None:
    change = {name: value for rule in rules for name, value in BAD[rule].items()}
    decision = judge(GOOD.model_copy(update=change))
    assert decision.decision == "forbid"
    assert set(decision.rules) == set(rules)
    assert decision.reason and len(decision.policy_sha256) == 64


def test_a_typo_in_a_policy_is_refused_at_load() -> None:
    text = "permit (principal, action, resource) when { resource.no_such_attribute };"
    schema = "entity A; action admit appliesTo { principal: A, resource: A };"
    with pytest.raises(Forbidden):
        cedar.parse(text, schema)


def test_an_error_while_deciding_is_a_forbid() -> None:
    policy = cedar.load("admission")
    agent, task = cedar.Entity("Agent", "a", {}), cedar.Entity("Task", "t", {})  # the agent lacks its capabilities
    assert cedar.decide(policy, agent, "admit", task, {}).decision == "forbid"


def test_without_the_schema_a_failing_forbid_lets_the_request_through() -> None:
    # Negative control: this is the trap that the guards close.
    import cedarpy

    text = "permit (principal, action, resource); forbid (principal, action, resource) when { resource.missing == true };"
    request = {
        "principal": {"type": "A", "id": "x"},
        "action": {"type": "Action", "id": "admit"},
        "resource": {"type": "A", "id": "x"},
        "context": {},
    }
    result = cedarpy.is_authorized(request, text, [])
    assert result.allowed and result.diagnostics.errors


USE = UseRequest(task_run="g1-a", epoch=1, lease=("git-commit", "test"), capability="test", detail={}, reason="r")


@pytest.mark.parametrize(
    ("capability", "lease", "decision", "rules"),
    [
        ("test", ("git-commit", "test"), "permit", ("within-lease",)),
        ("pkg-install", ("git-commit", "test"), "forbid", ("beyond-lease",)),
        ("test", (), "forbid", ("beyond-lease",)),
        ('"] || true', ("test",), "forbid", ("beyond-lease",)),
    ],
)
def test_a_worker_may_use_what_its_lease_has(capability: str, lease: tuple[str, ...], decision: str, rules: tuple[str, ...]) -> None:
    said = judge(USE.model_copy(update={"capability": capability, "lease": lease}))
    assert (said.decision, said.rules, said.decided_by) == (decision, rules, "policy")
    assert said.policy_sha256 == cedar.load("permission").sha256
    assert said.reason.startswith("The lease of this attempt has: ") and ("never widened" in said.reason) == (decision == "forbid")


def test_the_first_decider_that_has_an_answer_decides_and_none_is_a_forbid() -> None:
    asked: list[str] = []

    def silent(question: UseRequest) -> Decision | None:
        asked.append(question.capability)
        return None

    assert first_answer((silent, *CHAINS[UseRequest]), USE) == judge(USE) and asked == ["test"]
    assert first_answer((*CHAINS[UseRequest], silent), USE) == judge(USE) and asked == ["test"]
    assert first_answer((silent,), USE).decision == "forbid"
