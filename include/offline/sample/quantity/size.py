"""Sizes: ``3 KiB`` is 3072 bytes."""

import re

UNITS = ["B", "KiB", "MiB", "GiB", "TiB"]
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)")


def parse_size(text):
    """Bytes of a size such as ``12 MiB``.

    Raises ValueError for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"not a size: {text!r}")
    number, unit = match.groups()
    return round(float(number) * 1024 ** UNITS.index(unit))


def format_size(size):
    """A size with one decimal in the largest unit that it fills; plain bytes below a KiB."""
    if size < 0:
        raise ValueError("a size is not negative")
    value, unit = float(size), 0
    while value >= 1024 and unit < len(UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"
