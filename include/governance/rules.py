"""The chain of the audit log: what an entry's hash is of, and whether a row of links holds. Pure: PostgreSQL chains by the same rule."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from include.governance.models import Chain, Link

NOTHING = "0" * 64
"""What the first entry says of the one before it."""


def link_hash(link: Link) -> str:
    """SHA-256, in hex, over the entry's fields, each led by its length in characters (as the database's function ``audit_text``)."""
    parts = (link.previous or "", str(link.position), link.id, str(link.at_micros), link.actor, link.action, link.subject, link.detail)
    text = " ".join(f"{len(part)} {part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()


def walk(links: Iterable[Link], head: str | None = None) -> Chain:
    """Check every link, from the first entry to the last.

    Args:
        links: by position; those without one last.
        head: the head of an earlier walk, kept elsewhere: it must still be in the chain. Without it a tail that was cut off or hashed anew
            is no different from a true one.
    """
    count, before, seen = 0, NOTHING, head in (None, NOTHING)
    for link in links:
        problem = _problem(link, count + 1, before)
        if problem:
            return Chain(count, before, count + 1, problem)
        count, before = count + 1, link.hash or ""
        seen = seen or before == head
    if seen:
        return Chain(count, before, None, None)
    return Chain(count, before, count + 1, f"the head {head} is not in the chain: its end was cut off or written anew")


def _problem(link: Link, position: int, before: str) -> str | None:
    if link.position != position:
        return f"entry {position} is missing, or one stands beside the chain"
    if link.previous != before:
        return f"entry {position} does not follow the one before it"
    return None if link_hash(link) == link.hash else f"entry {position} does not say what its hash is of"
