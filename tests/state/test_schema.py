"""The schema that people read is the schema that there is."""

from __future__ import annotations

import pytest

from include.database.unit_of_work import transaction
from include.settings import Settings
from tests.kit import schema
from tests.test_house import OWNERS


def test_the_schema_that_people_read_is_the_databases(settings: Settings, request: pytest.FixtureRequest) -> None:
    with transaction("owner") as connection:
        found = schema.render(connection)
        if request.config.getoption("--write-schema"):
            schema.FILE.write_text(found)
        assert schema.FILE.read_text() == found, f"docs/schema.sql is old. Renew it: {schema.RENEW}"
        # control: a change of the database is seen
        connection.execute("ALTER TABLE goals ADD COLUMN mood text")
        assert "mood text" in schema.render(connection)
        connection.rollback()


def test_every_table_has_its_room(settings: Settings) -> None:
    with transaction("owner") as connection:
        tables = {row["name"] for row in connection.execute(schema._TABLES)}
    assert tables == set(OWNERS)


def test_comments_of_migrations_are_kept() -> None:
    said = schema.remarks(
        "-- Goals ----\nCREATE TABLE goals (\n  id uuid, -- which\n  note text NOT NULL DEFAULT '',-- why\n  CHECK (a) -- no column\n);\n"
        "-- What a plan is made of, and when.\nCREATE TABLE plans (\n  id int\n);\nALTER TABLE goals\n  ADD COLUMN more int; -- newest\n"
        "-- Tells who is alive now -----\n-- And who was so a minute ago.\nCREATE OR REPLACE FUNCTION beat() RETURNS void\n"
    )
    assert said.tables == {"plans": "What a plan is made of, and when."}
    assert said.functions == {"beat": "Tells who is alive now.\n-- And who was so a minute ago."}
    assert said.columns.items() >= {("goals", "id"): "which", ("goals", "note"): "why", ("goals", "more"): "newest"}.items()
