"""Durations: ``1h 30m`` is 5400 seconds."""

import re

SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([dhms])")


def parse_duration(text):
    """Seconds of a duration such as ``1h 30m`` or ``2.5s``.

    Raises ValueError for anything else.
    """
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError(f"not a duration: {text!r}")
    return float(sum(float(number) * SECONDS[unit] for number, unit in parts))


def format_duration(seconds):
    """The shortest exact text of whole seconds, largest unit first; fractions only below a minute."""
    if seconds < 0:
        raise ValueError("a duration is not negative")
    if seconds < 60:
        return f"{seconds:g}s"
    rest, parts = round(seconds), []
    for unit, size in SECONDS.items():
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts)
