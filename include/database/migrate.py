"""Bring Airlock's database to the newest version: roles, tables (Alembic), and the table of transitions that the caller hands in."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import psycopg
from psycopg import sql

from include.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"
ROLES = ("owner", "airflow", "broker", "warden", "gatekeeper", "cli")


def create_roles_and_databases(admin_dsn: str, settings: Settings, databases: tuple[str, ...] = ("airlock", "airflow")) -> None:
    """Make what is missing: one login role a process kind, and the databases, owned by ``airlock_owner``.

    Args:
        admin_dsn: address of the server as a superuser.
        settings: carries the roles' password.
        databases: names to create.
    """
    with psycopg.connect(admin_dsn, autocommit=True) as connection:
        for role in ROLES:
            name = sql.Identifier(f"airlock_{role}")
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (f"airlock_{role}",)).fetchone():
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
            connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(settings.pg_password)))
        for database in databases:
            if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER airlock_owner").format(sql.Identifier(database)))


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Run the migrations up to a revision, as ``airlock_owner``."""
    from alembic import command  # a second of processor time, which the start of a database that is at its newest version does not need
    from alembic.config import Config
    from sqlalchemy import create_engine

    engine = create_engine(settings.dsn("owner").replace("postgresql://", "postgresql+psycopg://", 1))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
    engine.dispose()


def newest() -> str:
    """The newest revision, by the names of the migrations' files."""
    return max(path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _version(settings: Settings) -> str | None:
    try:
        with psycopg.connect(settings.dsn("owner")) as owner:
            row = owner.execute("SELECT version_num FROM airlock_version").fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return row[0] if row else None


def migrate(settings: Settings, transitions: Collection[tuple[str, str, str]]) -> None:
    """Run the migrations that are due, and replace the table of allowed transitions.

    Args:
        settings: name the database.
        transitions: machine, state before ('' for a beginning) and state after; the code's are ``include.tasks.rules.TRANSITIONS``.
    """
    if _version(settings) != newest():
        upgrade(settings)
    with psycopg.connect(settings.dsn("owner")) as owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM transitions")
        cursor.executemany("INSERT INTO transitions VALUES (%s, %s, %s)", transitions)
