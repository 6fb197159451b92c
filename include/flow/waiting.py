"""Wait without holding a worker slot for long: a step asks ``advance`` again and again; after a few seconds the triggerer does the waiting.

``advance`` must be idempotent: it looks first for its own stored request and result. It returns ``NotYet`` or the step's result.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from uuid import UUID

from airflow.sdk import BaseOperator
from airflow.triggers.base import BaseTrigger, TriggerEvent

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection, kept_connections, listening, pooled_transaction
from include.errors import Unavailable
from include.fleet import service as fleet
from include.flow.taken import settle
from include.flow.told import Told
from include.leases import service as leases

_SQL = load(__file__)
PATIENCE_S = 12.0
"""A deferral costs 3 to 4 s, so what is usually shorter than that is waited for in the step."""
_LONG = frozenset({"run_ended"})
"""What always takes longer: the end of a whole goal. Its waiting begins in the triggerer, without a worker slot."""
_LONG_S = 3.0
LOOK_AGAIN_S = 0.5
"""Between two looks, should nobody tell; much less than the minute after which a verification counts as unwatched."""
ROOM = "room"
"""Asked of the fleet, which alone knows: does a node have a place for one more worker?"""
EVIDENCE = "evidence"
"""Asked of the leases, as the answer also says that somebody still waits: has the sandbox of this lease to verify ended?"""
_TOLD_ON = {EVIDENCE: "evidence", "judged": "judged", "answered": "model_request", "run_ended": "airlock_state"}
"""The channel on which PostgreSQL tells that a query's answer may have changed; the others are only looked at."""


class NotYet(NamedTuple):
    """What is waited for: a query of this folder's queries.sql (or ``ROOM``, ``EVIDENCE``), its subject, and the words for the log."""

    query: str
    subject: str
    words: str


@kept_connections()
def until_done(operator: BaseOperator, advance: Callable[[], Any]) -> Any:
    """Call ``advance`` until it has a result; defer when that takes longer than ``PATIENCE_S``.

    Args:
        operator: the step; its method ``resume(context, event)`` is called when the waiting is over and must call this again.
        advance: see the module.
    """
    end = time.monotonic() + PATIENCE_S
    said = ""
    while True:
        result = _patiently(operator, advance)
        if not isinstance(result, NotYet):
            return result
        if result.words != said:
            operator.log.info(result.words)
            said = result.words
        if not _ready_by(0 if result.query in _LONG else end, result):
            epoch = getattr(operator, "epoch", None)
            operator.defer(trigger=WaitTrigger(query=result.query, subject=result.subject, epoch=epoch), method_name="resume")


def _patiently(operator: BaseOperator, advance: Callable[[], Any]) -> Any:
    """An outage is waited out for a while: what ``advance`` does is idempotent."""
    for pause in (0.5, 1, 2, 4, 8, 15):
        try:
            return advance()
        except Unavailable as error:
            operator.log.warning("%s Trying again in %s s.", error, pause)
            time.sleep(pause)
    return advance()


def _ready_by(end: float, what: NotYet) -> bool:
    """Look, and again whenever PostgreSQL tells or some time has gone by, until it is there or the time is over."""
    with listening("airflow", _TOLD_ON.get(what.query)) as connection:
        while not _ask(connection, what.query, what.subject):
            if (left := end - time.monotonic()) <= 0:
                return False
            for _ in connection.notifies(timeout=min(LOOK_AGAIN_S, left), stop_after=1):
                pass
        return True


def _ask(connection: Connection, query: str, subject: str) -> bool:
    if query == ROOM:
        return fleet.has_room(connection)
    if query == EVIDENCE:
        return leases.watch_evidence(connection, UUID(subject))
    return bool(rows.scalar(connection, getattr(_SQL, query), subject=subject))


class WaitTrigger(Told, BaseTrigger):
    """Fires when a query of this folder's queries.sql says true for its subject."""

    def __init__(self, query: str, subject: str, epoch: int | None = None, **_: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.query = query
        self.subject = subject
        self.epoch = epoch  # of the attempt that the step works for

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Where to find this class, and its arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "query": self.query,
            "subject": self.subject,
            "epoch": self.epoch,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll once a second, for what takes long less often; an outage of PostgreSQL is waited out."""
        while not await asyncio.to_thread(self._ready):
            await asyncio.sleep(_LONG_S if self.query in _LONG else 1)
        yield TriggerEvent({"ready": True})

    async def on_kill(self) -> None:
        """A person marked or cleared the waiting step, or another triggerer took over."""
        await asyncio.to_thread(settle, self.task_instance, self.log, self.epoch)

    def _ready(self) -> bool:
        try:
            with pooled_transaction("airflow") as connection:
                return _ask(connection, self.query, self.subject)
        except Unavailable:
            return False
