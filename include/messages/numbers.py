"""Which of an attempt's message numbers are in: ranges, of which contiguous ones are one. The database keeps the same (leases.taken)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

MOST_RANGES = 1_000
"""A worker numbers its messages one by one; who leaves more gaps than this is refused what would open one more."""


class Numbers:
    """A set of numbers, cheap while they come nearly in order.

    Args:
        ranges: what is in, as half-open (first, beyond), sorted and apart from each other.
    """

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        pairs = list(ranges)
        self._first = [first for first, _ in pairs]
        self._beyond = [beyond for _, beyond in pairs]

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number) - 1
        return at >= 0 and number < self._beyond[at]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """What is in, as half-open (first, beyond)."""
        return list(zip(self._first, self._beyond, strict=True))

    def has_room(self, number: int) -> bool:
        """Check that a number may come in; False: it would stand alone, and there are too many gaps already."""
        return len(self._first) < MOST_RANGES or number - 1 in self or number + 1 in self

    def add(self, number: int) -> None:
        """Take a number in (once or again)."""
        if number in self:
            return
        at = bisect_right(self._first, number)
        after_one, before_one = at > 0 and self._beyond[at - 1] == number, at < len(self._first) and self._first[at] == number + 1
        if after_one and before_one:
            self._beyond[at - 1] = self._beyond.pop(at)
            self._first.pop(at)
        elif after_one:
            self._beyond[at - 1] = number + 1
        elif before_one:
            self._first[at] = number
        else:
            self._first.insert(at, number)
            self._beyond.insert(at, number + 1)

    def all_before(self, number: int) -> bool:
        """Check that every number from 1 up to this one, without it, is in."""
        return number == 1 or (bool(self._first) and self._first[0] == 1 and self._beyond[0] >= number)
