"""Control of the audit log's writers: without its lock the chain breaks under eight at once."""

from __future__ import annotations

import pytest

from include.database.unit_of_work import transaction
from include.settings import Settings
from tests.governance import test_audit


def test_control_without_its_lock_eight_writers_break_the_chain(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    lock = "pg_advisory_xact_lock(hashtextextended('airlock audit', 0))"
    with transaction("owner") as connection:
        row = connection.execute("SELECT pg_get_functiondef('chain_audit()'::regprocedure) AS text").fetchone()
        assert row is not None and lock in row["text"]
        connection.execute(row["text"].replace(lock, "1"))
    with pytest.raises(AssertionError):
        test_audit.test_eight_writers_at_once_and_the_chain_is_whole(settings, capsys)
