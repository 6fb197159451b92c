"""What a step waits for is asked of PostgreSQL: every question is one that PostgreSQL understands."""

from __future__ import annotations

from uuid import uuid4

import pytest

from include.database.unit_of_work import transaction
from include.flow import waiting
from include.settings import Settings

SUBJECTS = {"evidence": str(uuid4()), "unwatched": str(uuid4()), "judged": str(uuid4()), "answered": "g/plan/1", "room": "any",
            "run_ended": "g000000000000"}  # fmt: skip


@pytest.mark.parametrize("query", SUBJECTS)
def test_what_is_not_there_is_not_ready(settings: Settings, query: str) -> None:
    with transaction("airflow") as connection:
        assert waiting._ask(connection, query, SUBJECTS[query]) is False


def test_room_is_found_when_a_node_has_some(settings: Settings) -> None:
    with transaction("owner") as connection:
        connection.execute("INSERT INTO nodes VALUES ('local', 1, 'bubblewrap', '')")
    with transaction("airflow") as connection:
        assert waiting._ask(connection, "room", "any") is True
