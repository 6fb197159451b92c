"""One step of a start, as a process of its own (so the supervisor need not load Alembic): roles, tables, agents, toolbox."""

from __future__ import annotations

from include.agents.service import seed
from include.database.migrate import create_roles_and_databases, migrate
from include.database.unit_of_work import transaction
from include.local.health import admin_dsn
from include.sandbox.toolbox import build
from include.settings import Settings, settings
from include.tasks.rules import TRANSITIONS


def prepare(settings: Settings) -> None:
    """Bring database and folders to what this version of the code needs. Doing it again changes nothing.

    On a server of the machine (setting ``pg_host``) the roles and databases are its administrator's to make.
    """
    if settings.pg_host == "127.0.0.1":
        create_roles_and_databases(admin_dsn(settings), settings)
    migrate(settings, TRANSITIONS)
    with transaction("owner") as connection:
        seed(connection)
    for folder in (settings.mirrors_dir, settings.bundles_dir, settings.handins_dir):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    build(settings)


def main() -> None:
    """Prepare this home."""
    prepare(settings())


if __name__ == "__main__":
    main()
