"""progress: a milestone that a person may want to see."""

from __future__ import annotations

from include.broker.effects import Effects, Heard


def gather(effects: Effects, message: Heard) -> None:
    """Keep the worker's own words, also as an event."""
    step = message.clean(message.envelope.payload.step)
    effects.steps[message.attempt] = step
    effects.milestones.append((message.attempt, step))
