"""The chain of the audit log (what an entry's hash is of; PostgreSQL chains by the same rule), and who may give which command. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from include.governance.models import Chain, Command, Link, Operator, Way

NOTHING = "0" * 64
"""What the first entry says of the one before it."""
MAY: dict[Way, frozenset[Command]] = {
    "command line": frozenset({"cancel", "extend", "prune", "add repository"}),
    "supervisor": frozenset({"stop"}),
}
"""Which commands are taken by which way. On the command line whoever can read this home's password may; the supervisor only stops."""


def may(operator: Operator, command: Command) -> bool:
    """Say whether an operator may give a command."""
    return command in MAY[operator.via]


def link_hash(link: Link) -> str:
    """Compute SHA-256, in hex, over the entry's fields, each led by its length in characters (as ``audit_text`` of the database)."""
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
