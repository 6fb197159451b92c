"""task.complete and task.failed: the worker's last word; nothing follows."""

from __future__ import annotations

from include.broker.effects import Effects, Heard
from include.messages.models import Receipt
from include.messages.strict_json import storable
from include.tasks.batches import LastWord
from include.tasks.models import AttemptState, Failure

TYPES = ("task.complete", "task.failed")
_FAILURES = {
    "gave_up": Failure.WORKER_FAILED, "crashed": Failure.WORKER_FAILED, "model": Failure.MODEL, "away": Failure.MODEL_AWAY,
    "budget": Failure.BUDGET, "cancelled": None,
}  # fmt: skip
"""What the worker gives as its reason, as a class of failure; None: whoever cancelled it has written why."""


def gather_complete(effects: Effects, message: Heard) -> None:
    """Keep which commit was handed in; the worker gets a receipt."""
    payload = message.envelope.payload
    word = LastWord(AttemptState.COMPLETING, commit=payload.commit, summary=storable(payload.summary))
    effects.endings.append((message.attempt, word))
    effects.answer(message, Receipt())


def gather_failed(effects: Effects, message: Heard) -> None:
    """Keep why the worker gives up; it gets a receipt."""
    payload = message.envelope.payload
    word = LastWord(AttemptState.FAILED, failure=_FAILURES.get(payload.kind), reason=storable(payload.reason))
    effects.endings.append((message.attempt, word))
    effects.answer(message, Receipt())
