"""JSON from the other side of a wall: one meaning or none. Never crashes: every refusal is ``NotStrict``."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from pydantic_core import from_json

MAX_DIGITS = 100
"""Longest integer that is taken, in digits."""
MAX_DEPTH = 100
"""Deepest nesting that is taken."""


class NotStrict(ValueError):
    """Bytes that are not strict JSON; the message says why."""


def parse(data: bytes, *, unique_keys: bool = True) -> Any:
    """Read JSON strictly.

    Args:
        data: UTF-8 bytes.
        unique_keys: refuse an object that holds a key twice (RFC 8259 leaves its meaning open).

    Returns:
        The value.

    Raises:
        NotStrict: the grammar is broken, or a number is not finite or too long, or it is nested too deep, or a key stands twice.
    """
    try:
        from_json(data, allow_inf_nan=False)  # the grammar, and a depth that the second reading can bear
        value = (_STRICT if unique_keys else _LOOSE).decode(data.decode())
    except (ValueError, RecursionError) as error:
        raise NotStrict(str(error)) from None
    # Each level opens with a bracket; where there are no more than that (the usual case) nothing needs to be walked.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise NotStrict(f"nested deeper than {MAX_DEPTH}")
    return value


def storable(value: Any) -> Any:
    """Replace each NUL character in a value by U+FFFD: PostgreSQL's text and jsonb cannot hold a NUL."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [storable(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("a key stands twice in one object")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise NotStrict("a number is too large")
    return number


def _bounded(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise NotStrict(f"an integer has more than {MAX_DIGITS} digits")
    return int(text)


def _constant(text: str) -> NoReturn:
    raise NotStrict(f"{text} is not JSON")


def _deeper_than(value: Any, depth: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    items = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_deeper_than(item, depth - 1) for item in items)


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_int=_bounded, parse_constant=_constant)
_LOOSE = json.JSONDecoder(parse_float=_finite, parse_int=_bounded, parse_constant=_constant)
