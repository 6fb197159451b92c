"""``./airlock prune``: prune now, and say so in the audit log."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import TypeVar

from include.database.unit_of_work import Connection, transaction
from include.goals import pruning
from include.governance import service as governance
from include.settings import Settings

T = TypeVar("T")


def prune(settings: Settings, events_days: int | None, transcripts_days: int | None) -> dict[str, int]:
    """Prune as role ``cli``; see ``include.goals.pruning.prune``."""
    gone = pruning.prune(_transact, settings, events_days, transcripts_days)
    with transaction("cli") as connection:
        governance.record(connection, getpass.getuser(), "pruned", "goal runs", dict(gone))
    return gone


def _transact(work: Callable[[Connection], T]) -> T:
    with transaction("cli") as connection:
        return work(connection)
