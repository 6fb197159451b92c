"""Agents in PostgreSQL, and the file of the default ones."""

from __future__ import annotations

from pathlib import Path

import yaml

from include.agents.models import Agent, AgentsFile
from include.database import queries, rows
from include.database.unit_of_work import Connection

_SQL = queries.load(__file__)


def read_file(path: Path) -> list[Agent]:
    """Read the agents of a YAML file such as ``agents.yaml``."""
    return list(AgentsFile.model_validate(yaml.safe_load(path.read_text())).agents)


def upsert(connection: Connection, agent: Agent) -> None:
    """Insert the agent, or bring its row to what is given."""
    values = agent.model_dump() | {
        "capabilities": list(agent.capabilities),
        "day_micro": round(agent.day_usd * 1_000_000),
        "month_micro": round(agent.month_usd * 1_000_000),
    }
    connection.execute(_SQL.upsert_agent, values)


def names(connection: Connection) -> list[str]:
    """Read the names of all agents, sorted."""
    return rows.scalars(connection, _SQL.agent_names)


def capabilities(connection: Connection, name: str) -> list[str]:
    """Read the most that a task of an agent may be given."""
    return list(rows.scalar(connection, _SQL.capabilities, name=name))
