"""permission.request: may the worker use a capability? Policy decides at once, by the attempt's lease."""

from __future__ import annotations

from include.broker.effects import Effects, Heard
from include.messages.models import PermissionDeny, PermissionGrant
from include.policy import service as policy
from include.policy.models import PolicyRecord, UseRequest


def gather(effects: Effects, message: Heard) -> None:
    """Let policy decide; the decision is recorded and the worker is told it."""
    speaker, wanted = message.speaker, message.envelope.payload
    asked = message.clean({"capability": wanted.capability, "detail": wanted.detail, "reason": wanted.reason})
    question = UseRequest(**message.attempt._asdict(), lease=tuple(sorted(speaker.capabilities)), **asked)
    decision = policy.judge(question)
    effects.decided.append(PolicyRecord(speaker.goal_run, message.attempt.epoch, question, decision))
    if decision.decision == "permit":
        effects.answer(message, PermissionGrant(capability=wanted.capability, approved_by="broker", note="Granted with the lease."))
    else:
        effects.answer(message, PermissionDeny(capability=wanted.capability, decided_by="broker", reason=decision.reason))
