"""Numbers that are in, against a plain set as the model; and the bound on gaps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.messages.numbers import MOST_RANGES, Numbers


@given(st.lists(st.integers(1, 40)), st.integers(1, 45))
def test_numbers_are_a_set_of_ranges(taken: list[int], asked: int) -> None:
    numbers, model = Numbers(), set(taken)
    for number in taken:
        numbers.add(number)
    assert (asked in numbers) == (asked in model)
    assert numbers.all_before(asked) == set(range(1, asked)).issubset(model)
    assert {n for first, beyond in numbers.ranges for n in range(first, beyond)} == model
    assert all(beyond < first for (_, beyond), (first, _) in zip(numbers.ranges, numbers.ranges[1:], strict=False))
    assert Numbers(numbers.ranges).ranges == numbers.ranges


def test_a_worker_that_leaves_too_many_gaps_has_no_room() -> None:
    numbers = Numbers((n, n + 1) for n in range(2, 2 * MOST_RANGES + 2, 2))
    assert numbers.has_room(1) and numbers.has_room(3) and not numbers.has_room(5 * MOST_RANGES)
    numbers.add(3)  # closes a gap
    assert numbers.has_room(5 * MOST_RANGES)
