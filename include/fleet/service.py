"""Register nodes, and choose the node of a sandbox. Only this room knows capacity, and which node is alive."""

from __future__ import annotations

from include.database.queries import load
from include.database.rows import every
from include.database.unit_of_work import AsyncConnection, Connection
from include.errors import Unavailable
from include.fleet.models import Listed, Load, Need, Offer, Placement
from include.fleet.rules import ALIVE_S, chosen
from include.settings import settings

_SQL = load(__file__)


def place(connection: Connection, need: Need) -> Placement | None:
    """Choose the node of a new sandbox by ``rules.chosen``; the caller grants the lease in the same transaction.

    Args:
        need: to work: no other worker is placed until the transaction ends, so that two cannot take the last place.

    Returns:
        None: for work, no node has a free place; for a verification, no node is alive.
    """
    if need is Need.WORK:
        connection.execute(_SQL.one_at_a_time)
    node = chosen(every(connection, Load, _SQL.alive, alive=ALIVE_S), need)
    return Placement(node=node.name, rung=node.rung) if node else None


def has_room(connection: Connection) -> bool:
    """Say whether ``place`` would find room for one more worker now."""
    return chosen(every(connection, Load, _SQL.alive, alive=ALIVE_S), Need.WORK) is not None


def address_of(node: str) -> str:
    """Find where the warden of a node answers the few calls of the Docker Engine API: ``unix:///path``.

    Raises:
        Unavailable: the node is another machine. A warden answers on a unix socket only, so the step must run beside it.
    """
    mine = settings()
    if node != mine.node:
        raise Unavailable(
            f"The sandbox was placed on node {node}, and this is node {mine.node}: its warden cannot be reached from here. "
            f"Run the steps of node {node} on its machine (a queue a node), or set AIRLOCK_NODE."
        )
    return f"unix://{mine.warden_socket}"


def nodes(connection: Connection) -> list[Listed]:
    """List all nodes by name, with those that are silent."""
    return every(connection, Listed, _SQL.every_node, alive=ALIVE_S)


async def register(connection: AsyncConnection, offer: Offer) -> None:
    """Store what a node offers, and that its warden is alive."""
    await connection.execute(_SQL.register, offer.model_dump())


async def beat(connection: AsyncConnection, node: str) -> None:
    """Store that the warden of a node is alive."""
    await connection.execute(_SQL.beat, {"name": node})
