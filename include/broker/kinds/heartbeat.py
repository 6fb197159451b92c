"""heartbeat: the worker lives, and says what it does."""

from __future__ import annotations

from include.broker.effects import Effects, Heard


def gather(effects: Effects, message: Heard) -> None:
    """Keep the worker's own words; of many in a batch the last ones."""
    effects.steps[message.attempt] = message.clean(message.envelope.payload.step)
