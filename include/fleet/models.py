"""A node: a machine with a sandbox engine and a capacity; and what is placed on it."""

from __future__ import annotations

from enum import StrEnum

from include.frozen import Frozen


class Need(StrEnum):
    """What a place is needed for."""

    WORK = "work"
    VERIFY = "verify"


class Offer(Frozen):
    """What a warden found that its machine offers."""

    name: str
    capacity: int
    rung: str
    notice: str


class Load(Frozen):
    """A live node and what lives on it: ``workers`` are leases to work, ``sandboxes`` are all live leases."""

    name: str
    rung: str
    capacity: int
    workers: int
    sandboxes: int


class Listed(Frozen):
    """A node as people are shown it; ``alive`` is judged by PostgreSQL's clock."""

    name: str
    rung: str
    notice: str
    capacity: int
    alive: bool


class Placement(Frozen):
    """The node that was chosen, and which rung holds sandboxes there. ``fleet.address_of(node)`` is where its warden answers."""

    node: str
    rung: str
