"""Typed results as workers saw them: hints, which no verdict is made from, kept under the hash of the message that brought them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from include.clock import new_id
from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.tasks.models import AttemptRef

_SQL = queries.load(__file__)


class Hint(NamedTuple):
    """What a worker says that it made or saw."""

    goal_run: str
    attempt: AttemptRef
    type: str
    sha256: str
    data: dict[str, Any]


async def keep(connection: AsyncConnection, hints: list[Hint]) -> None:
    """Store the hints of a batch of messages, in one statement."""
    if hints:
        rows = [(new_id(), hint.goal_run, *hint.attempt, hint.type, hint.sha256, json.dumps(hint.data)) for hint in hints]
        await connection.execute(_SQL.insert_hints, queries.columns("ids goal_runs task_runs epochs types digests datas", rows))
