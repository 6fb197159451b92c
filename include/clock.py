"""The one place that reads the machine's clock and makes ids. Leases are judged by PostgreSQL's clock, not by this one."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import uuid6


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


def new_id() -> UUID:
    """A fresh UUIDv7: unique, and sorted by time of making."""
    return UUID(str(uuid6.uuid7()))
