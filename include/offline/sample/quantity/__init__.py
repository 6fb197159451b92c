"""Durations and sizes as people write them."""

from quantity.duration import format_duration, parse_duration
from quantity.size import format_size, parse_size

__all__ = ["format_duration", "format_size", "parse_duration", "parse_size"]
