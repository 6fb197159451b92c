"""JSON without surprises: one reading of every text, or a refusal.

``json.loads`` takes NaN and Infinity, lets the last of two equal keys win, and overflows the stack on deep nesting. None of that may
decide what a message means.
"""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 64
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_BRACKET = re.compile(rb"[\[{\]}]")


def loads(body: bytes) -> Any:
    """Parse one JSON text in UTF-8.

    Raises:
        ValueError: it is not JSON, has a duplicate key, NaN or Infinity, or nests deeper than ``MAX_DEPTH``.
    """
    if _depth(body) > MAX_DEPTH:
        raise ValueError(f"nests deeper than {MAX_DEPTH}")
    text = body.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("starts with a byte order mark")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite)


def dumps(value: Any) -> bytes:
    """Compact JSON in UTF-8.

    Raises:
        ValueError: NaN, Infinity or a lone surrogate.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")


def storable(value: Any) -> Any:
    """Copy a value without what UTF-8 (lone surrogates) or PostgreSQL's jsonb (NUL) cannot hold: U+FFFD stands for it."""
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case dict():
            return {storable(key): storable(each) for key, each in value.items()}
        case list() | tuple():
            return [storable(each) for each in value]
    return value


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", body)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object holds the same key twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits[:40]} is too large a number")
    return number
