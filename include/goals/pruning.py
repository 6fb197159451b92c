"""What has grown old is taken away: rows of goal runs that ended long ago, and what their sandboxes left on this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.settings import Settings

_SQL = load(__file__)
_RUNS_AT_ONCE = 50
_DAY_S = 86_400
T = TypeVar("T")


class Transact(Protocol):
    """Runs work in a transaction of its own, and commits it."""

    def __call__(self, work: Callable[[Connection], T]) -> T:
        """Run it."""


def prune(transact: Transact, settings: Settings, events_days: int | None = None, transcripts_days: int | None = None) -> dict[str, int]:
    """Prune rows in batches that commit, then files. Money, decisions, verdicts, merges and the audit log stay; so does all that is young.

    Args:
        transact: opens each batch's transaction.
        events_days: age of events, messages and notices, at least 1; default: the setting.
        transcripts_days: age of transcripts, logs, hand-ins and bundles, at least 1; default: the setting.

    Returns:
        How many went, by kind: runs, keys, events, messages, notices, transcripts, logs, handins, bundles.
    """
    events, transcripts = events_days or settings.keep_events_days, transcripts_days or settings.keep_transcripts_days
    gone: Counter[str] = Counter()
    while True:
        batch = transact(lambda connection: _rows(connection, events, transcripts))
        gone.update(batch)
        if not batch["runs"]:
            break
    for kind, folder, suffix in (("handins", settings.handins_dir, ""), ("bundles", settings.bundles_dir, ".bundle")):
        gone[kind] = len(_files(transact, getattr(_SQL, f"needed_{kind}"), folder, suffix, transcripts))
    return dict(gone)


def _rows(connection: Connection, events_days: int, transcripts_days: int) -> dict[str, int]:
    names = {"events": events_days, "transcripts": transcripts_days, "most": _RUNS_AT_ONCE}
    counts: dict[str, int] = rows.scalar(connection, _SQL.prune, **names)
    return counts


def _files(transact: Transact, needed: str, folder: Path, suffix: str, days: int) -> list[Path]:
    """Delete the old files of a folder that no goal run needs any more; none are there on a machine that is no node."""
    before = time.time() - days * _DAY_S
    old = {path.name.removesuffix(suffix): path for path in folder.glob(f"*{suffix}") if path.stat().st_mtime < before}
    kept = transact(lambda connection: _needed(connection, needed, list(old), days))
    gone = [path for name, path in old.items() if name not in kept]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def _needed(connection: Connection, needed: str, names: list[str], days: int) -> set[Any]:
    return set(rows.scalars(connection, needed, names=names, days=days))
