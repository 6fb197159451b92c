"""Agents in PostgreSQL, and the file of the default ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from include.agents.models import Agent
from include.database import queries
from include.database.unit_of_work import Connection

_SQL = queries.load(__file__)


def read_file(path: Path) -> list[Agent]:
    """The agents of a YAML file such as ``agents.yaml``."""
    return [Agent.model_validate(entry) for entry in yaml.safe_load(path.read_text())["agents"]]


def upsert(connection: Connection, agent: Agent) -> None:
    """Insert the agent, or bring its row to what is given."""
    values = agent.model_dump() | {
        "capabilities": list(agent.capabilities),
        "day_micro": round(agent.day_usd * 1_000_000),
        "month_micro": round(agent.month_usd * 1_000_000),
    }
    connection.execute(_SQL.upsert_agent, values)


def find(connection: Connection, name: str) -> dict[str, Any] | None:
    """The row of an agent, or None."""
    return connection.execute(_SQL.agent, {"name": name}).fetchone()


def names(connection: Connection) -> list[str]:
    """The names of all agents, sorted."""
    return [row["name"] for row in connection.execute(_SQL.agent_names)]
