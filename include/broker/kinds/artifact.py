"""artifact: a typed result as the worker saw it, never a verdict."""

from __future__ import annotations

from include.artifacts.hints import Hint
from include.broker.effects import Effects, Heard
from include.messages.models import Receipt


def gather(effects: Effects, message: Heard) -> None:
    """Keep the result under the hash of its message; the worker gets a receipt."""
    payload = message.envelope.payload
    data = message.clean(payload.data)
    effects.hints.append(Hint(message.speaker.goal_run, message.attempt, payload.artifact_type, message.digest, data))
    effects.answer(message, Receipt())
