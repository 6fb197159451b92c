"""Who decides: for each kind of question a chain of deciders, asked in this order until one has an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from include.policy import cedar
from include.policy.cedar import Entity
from include.policy.models import AdmissionRequest, Decision, UseRequest

PROTECTED = (".git", ".github", ".gitattributes", ".gitmodules")
Decider = Callable[[Any], Decision | None]
"""Answers a question; None: it has no opinion, and the next one is asked."""


def admission(request: AdmissionRequest) -> Decision:
    """``admission.cedar`` decides whether a worker is let in."""
    agent = Entity("Agent", request.agent, {"capabilities": list(request.agent_capabilities)})
    asked = {
        "capabilities": list(request.capabilities),
        "touches_protected": any(path.split("/", 1)[0] in PROTECTED for path in request.touches),
        "worker_known": request.worker_known,
    }
    task = Entity("Task", request.task_run, asked)
    context = {"left_micro": request.left_micro, "seconds_left": request.seconds_left}
    return cedar.decide(cedar.load("admission"), agent, "admit", task, context)


def lease(request: UseRequest) -> Decision:
    """``permission.cedar`` decides what a worker may use: what its lease has."""
    attempt = Entity("Attempt", f"{request.task_run}/{request.epoch}", {"capabilities": list(request.lease)})
    wanted = Entity("Capability", "wanted", {"name": request.capability})
    decision = cedar.decide(cedar.load("permission"), attempt, "use", wanted, {})
    has = ", ".join(request.lease) or "no capability"
    return decision.model_copy(update={"reason": f"The lease of this attempt has: {has}. {decision.reason}."})


CHAINS: dict[type, tuple[Decider, ...]] = {AdmissionRequest: (admission,), UseRequest: (lease,)}


def first_answer(deciders: Sequence[Decider], question: Any) -> Decision:
    """Ask one decider after the other; where none has an answer, the question is refused."""
    for decider in deciders:
        if (said := decider(question)) is not None:
            return said
    return Decision(decision="forbid", decided_by="nobody", rules=(), reason="no decider has an answer", policy_sha256="")
