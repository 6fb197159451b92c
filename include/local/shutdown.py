"""Before everything stops: what is at work is revoked, and not counted against it."""

from __future__ import annotations

import time

import psycopg

from include.database.queries import load
from include.settings import Settings

_SQL = load(__file__)
REASON = "shutdown"


def revoke_what_is_at_work(settings: Settings, patience_s: float = 12.0) -> None:
    """Revoke every live lease, and wait until the warden has ended the sandboxes.

    Args:
        settings: name the database.
        patience_s: seconds to wait for the warden.

    """
    try:
        with psycopg.connect(settings.dsn("cli"), connect_timeout=2, autocommit=True) as connection:
            connection.execute(_SQL.revoke_all, {"reason": REASON})
            end = time.monotonic() + patience_s
            while time.monotonic() < end and connection.execute(_SQL.any_live_lease).fetchone():
                time.sleep(0.1)
    except psycopg.Error as error:  # a shutdown goes on also without the database: leases expire by themselves
        print(f"what is at work could not be revoked: {str(error).strip()}", flush=True)
