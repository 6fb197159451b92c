"""A commit that a worker made, read strictly: what git, a terminal or a reader could take in two ways is refused. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from include.errors import BundleRefused
from include.repository import letters

MAX_COMMITS = 1_000
"""Commits of a hand-in; a worker makes one for each step at most."""
EARLIEST = 1112911993
"""The date of git's own first commit, April 2005."""
LATEST_AHEAD_S = 86_400
"""How far a commit's date may be ahead of our clock: a day, for clocks that are set wrong."""
_WHO = rb"([^\n<>]*) <([^\n<>]*)> (\d{1,12}) ([+-]\d{4})\n"
_COMMIT = re.compile(
    rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)author " + _WHO + rb"committer " + _WHO + rb"\n(.*)\Z", re.DOTALL
)  # fmt: skip


class Commit(NamedTuple):
    """What a commit names."""

    tree: str
    parents: tuple[str, ...]


def read(name: str, raw: bytes, now: float) -> Commit:
    """Read a commit object.

    Args:
        name: its id.
        now: seconds since 1970.

    Raises:
        BundleRefused: it has other fields than git's own, an absurd date, or letters that are not seen.
    """
    found = _COMMIT.match(raw)
    if found is None:
        raise BundleRefused(f"the commit {name[:12]} has fields that are not taken (a signature, an encoding, others). Commit without them")
    for date, zone in ((found[5], found[6]), (found[9], found[10])):
        if not EARLIEST <= int(date) <= now + LATEST_AHEAD_S or int(zone[1:]) > 1400:
            raise BundleRefused(
                f"the commit {name[:12]} has the date {int(date)} {zone.decode()}, which cannot be. Commit again with today's"
            )
    texts = [("author", found[3]), ("author", found[4]), ("committer", found[7]), ("committer", found[8])]
    for what, raw_text in (*texts, ("message", found[11])):
        _check_text(name, what, raw_text)
    return Commit(found[1].decode(), tuple(line[7:].decode() for line in found[2].splitlines()))


def _check_text(name: str, what: str, raw: bytes) -> None:
    try:
        fault = letters.fault_of_text(raw.decode("utf-8"), "\n\t" if what == "message" else "")
    except UnicodeDecodeError:
        fault = "is not UTF-8"
    if fault:
        raise BundleRefused(f"the {what} of the commit {name[:12]} {fault}. Write it in plain text")
