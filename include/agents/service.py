"""Agents: make the default ones, find one by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from include.agents import store
from include.database.unit_of_work import Connection
from include.errors import BadInput


def seed(connection: Connection) -> list[str]:
    """Bring the table to what ``agents.yaml`` says (as role ``owner``); returns the names of all agents."""
    for agent in store.read_file(Path(__file__).parent / "agents.yaml"):
        store.upsert(connection, agent)
    return store.names(connection)


def find(connection: Connection, name: str) -> dict[str, Any]:
    """The row of an agent.

    Raises:
        BadInput: there is none of this name; the message offers those there are.
    """
    if row := store.find(connection, name):
        return row
    known = store.names(connection)
    near = get_close_matches(name, known, 1) or known
    raise BadInput("agent", f"there is no agent {name!r}", f"Did you mean {' or '.join(near)}?" if near else "Run `./airlock up` first.")
