"""Transfer logs: one transfer a line, ``NAME SIZE UNIT DURATION``."""

from dataclasses import dataclass

from quantity.duration import parse_duration
from quantity.size import parse_size


@dataclass(frozen=True)
class Transfer:
    """One transfer: bytes and seconds."""

    name: str
    size: int
    seconds: float


def read_line(line):
    """The transfer of a line such as ``backup 12 MiB 1m 3s``."""
    words = line.split()
    if len(words) < 4:
        raise ValueError(f"not a transfer: {line!r}")
    return Transfer(words[0], parse_size(" ".join(words[1:3])), parse_duration(" ".join(words[3:])))


def read_log(text):
    """The transfers of a log; empty lines and lines that start with ``#`` are skipped."""
    lines = (line.strip() for line in text.splitlines())
    return [read_line(line) for line in lines if line and not line.startswith("#")]
