"""A broker that is asked to stop in any moment stops."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import pytest

from include.broker.process import wait

Waiting = Callable[[asyncio.Event, float], Awaitable[object]]


async def swallows(waiting: Waiting, steps: int) -> bool:
    """Set the event, let the loop go so many steps on, cancel who waits; True if it still waits then, and does not hear the cancellation."""
    event = asyncio.Event()
    waits = asyncio.ensure_future(waiting(event, 30))
    for _ in range(3):
        await asyncio.sleep(0)
    event.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    heard = not waits.cancel()  # it had ended: there is nothing to hear
    return not (heard or isinstance((await asyncio.gather(waits, return_exceptions=True))[0], asyncio.CancelledError))


def test_a_stop_is_heard_in_the_moment_of_a_wake() -> None:
    assert [steps for steps in range(5) if asyncio.run(swallows(wait, steps))] == []


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python 3.12 has mended wait_for")
def test_control_wait_for_swallows_it() -> None:
    assert [steps for steps in range(5) if asyncio.run(swallows(lambda event, seconds: asyncio.wait_for(event.wait(), seconds), steps))]
