"""Agents: make the default ones, read what one may grant."""

from __future__ import annotations

from pathlib import Path

from include.agents import store
from include.database.unit_of_work import Connection


def seed(connection: Connection) -> list[str]:
    """Bring the table to what ``agents.yaml`` says (as role ``owner``); returns the names of all agents."""
    for agent in store.read_file(Path(__file__).parent / "agents.yaml"):
        store.upsert(connection, agent)
    return store.names(connection)


def capabilities(connection: Connection, name: str) -> list[str]:
    """Read the most that a task of an agent may be given."""
    return store.capabilities(connection, name)


def names(connection: Connection) -> list[str]:
    """Read the names of all agents."""
    return store.names(connection)
