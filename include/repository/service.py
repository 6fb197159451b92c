"""Keep the registered repositories: a name for each folder that goals may work on. Only here is the table ``repositories`` written."""

from __future__ import annotations

import re
from pathlib import Path

from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import BadInput
from include.repository.models import Registered

_SQL = load(__file__)
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def named(connection: Connection, name: str) -> Registered | None:
    """Look a repository up by its name alone; None: nobody registered it."""
    return rows.maybe(connection, Registered, _SQL.named, name=name)


def find(connection: Connection, word: str) -> Registered | None:
    """Look a repository up by its name or its absolute path; None: nobody registered it."""
    return rows.maybe(connection, Registered, _SQL.find, word=word)


def every(connection: Connection) -> list[Registered]:
    """Read all registered repositories."""
    return rows.every(connection, Registered, _SQL.every)


def listed(connection: Connection) -> list[str]:
    """Read the names that a form or REST may use."""
    return rows.scalars(connection, _SQL.listed)


def add(connection: Connection, name: str, path: Path) -> Registered:
    """Register a folder under a name that forms and REST may use.

    Raises:
        BadInput: it is no name, it stands for another folder, or the folder has another name.
    """
    if not _NAME.fullmatch(name):
        remedy = "Use up to 64 lower-case letters, digits, dots, dashes, underscores."
        raise BadInput("name", f"{name!r} is no name for a repository", remedy)
    connection.execute(_SQL.add, {"name": name, "path": str(path), "listed": True})
    known = find(connection, str(path))
    if known is None:
        raise BadInput("name", f"{name!r} stands for another folder", "Choose another name; see `./airlock repo list`.")
    if known.name != name:
        problem = f"{path} is already registered as {known.name!r}"
        raise BadInput("name", problem, f"Use that name: it was made known with `--repo {path}`.")
    connection.execute(_SQL.list_one, {"name": name})
    return known.model_copy(update={"listed": True})


def register(connection: Connection, path: Path) -> Registered:
    """Register a folder under a free name, for the command line only; a folder that is registered already keeps its name."""
    known = find(connection, str(path))
    if known is not None:
        return known
    name = _free_name({each.name for each in every(connection)}, path)
    connection.execute(_SQL.add, {"name": name, "path": str(path), "listed": False})
    added = find(connection, str(path))
    if added is None:
        raise BadInput("repo", f"{name!r} was taken for another folder at this moment", "Run the command again.")
    return added


def _free_name(taken: set[str], path: Path) -> str:
    base = re.sub(r"[^a-z0-9._-]+", "-", path.name.lower()).strip("-._")[:56] or "repository"
    return next(name for name in (base, *(f"{base}-{n}" for n in range(2, 10_000))) if name not in taken)
