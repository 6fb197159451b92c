"""Which node gets the next sandbox. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from include.fleet.models import Load, Need

ALIVE_S: Final = 30.0
"""A node whose warden has given no heartbeat for so many seconds is not alive: three beats of a warden.
(``leaves_no_more`` in the database holds the same figure: what the sandbox of a silent node leaves is not waited for.)"""


def chosen(nodes: Sequence[Load], need: Need) -> Load | None:
    """Choose the node with the most room; nodes with equal room are taken by their names.

    A worker needs a free place: a node has as many as its capacity, and each live lease to work takes one. A verification needs none. It is
    short, it holds up a worker that has finished, and it may not wait for ever behind workers; so it also goes to a node that is full of
    them, to the one that is least full. It counts in what a node has to carry, so that the next sandbox rather goes elsewhere.

    Args:
        nodes: those that are alive.
        need: what the place is for.

    Returns:
        None: no node has a place.
    """
    fit = [node for node in nodes if need is Need.VERIFY or node.workers < node.capacity]
    return min(fit, key=lambda node: (node.sandboxes - node.capacity, node.name), default=None)
