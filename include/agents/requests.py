"""What Airflow's steps ask of an agent's model (table ``model_requests``): a step asks and finds the answer, the agent's broker answers."""

from __future__ import annotations

from uuid import UUID

from psycopg.types.json import Jsonb

from include.agents.models import End, Inquiry, ModelRequest, Said
from include.clock import new_id
from include.database import queries, rows
from include.database.unit_of_work import AsyncConnection, Connection

_SQL = queries.load(__file__)


def ask(connection: Connection, inquiry: Inquiry) -> None:
    """Leave a question for the agent's broker."""
    body = Jsonb(inquiry.body.model_dump(by_alias=True))
    connection.execute(_SQL.insert_request, inquiry.model_dump(exclude={"body"}) | {"id": new_id(), "body": body})


def find(connection: Connection, address: str) -> Said | None:
    """Read what became of the question at an address; None: it was never asked."""
    return rows.maybe(connection, Said, _SQL.request_at, address=address)


async def waiting(connection: AsyncConnection, agent: str, age_s: float) -> list[ModelRequest]:
    """Read the questions to an agent that nobody works on.

    Args:
        age_s: only those that were asked so many seconds ago.
    """
    return await rows.aevery(connection, ModelRequest, _SQL.requested, agent=agent, age_s=age_s)


async def end(connection: AsyncConnection, id_: UUID, how: End) -> None:
    """Write how a question ends; the first end stands."""
    response = None if how.error_kind else Jsonb({"text": how.text, "stop_reason": how.stop_reason})
    state = "failed" if how.error_kind else "done"
    names = {"id": id_, "state": state, "response": response, "error_kind": how.error_kind, "error": how.error}
    await connection.execute(_SQL.end_request, names)
