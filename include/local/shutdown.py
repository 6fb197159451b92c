"""Before everything stops: what is at work is revoked, and not counted against it."""

from __future__ import annotations

import time

import psycopg
from psycopg.rows import dict_row

from include.governance.models import Operator
from include.settings import Settings

REASON = "shutdown"
SUPERVISOR = Operator(name="supervisor", via="supervisor")


def revoke_what_is_at_work(settings: Settings, patience_s: float = 12.0) -> None:
    """Revoke every live lease, and wait until the warden has ended the sandboxes.

    Args:
        settings: name the database.
        patience_s: seconds to wait for the warden.

    """
    from include.governance import commands  # it knows every room: nothing that a supervisor should carry while all is well
    from include.leases import operators

    try:
        with psycopg.connect(settings.dsn("cli"), row_factory=dict_row, connect_timeout=2, autocommit=True) as connection:
            with connection.transaction():
                commands.stop(connection, SUPERVISOR, REASON)
            end = time.monotonic() + patience_s
            while time.monotonic() < end and operators.any_live(connection):
                time.sleep(0.1)
    except psycopg.Error as error:  # a shutdown goes on also without the database: leases expire by themselves
        print(f"what is at work could not be revoked: {str(error).strip()}", flush=True)
