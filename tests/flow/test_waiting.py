"""What a step waits for: each question is one that PostgreSQL can answer."""

from __future__ import annotations

import pytest

from include.clock import new_id
from include.database.unit_of_work import transaction
from include.flow import waiting
from include.settings import Settings
from tests.kit import build

QUESTIONS = sorted([waiting.ROOM, *(name for name, sql in vars(waiting._SQL).items() if "%(subject)s" in sql)])


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_can_be_asked(settings: Settings, question: str) -> None:
    with transaction("airflow") as connection:
        assert waiting._ask(connection, question, str(new_id())) in (True, False)


def test_room_is_there_once_a_node_is(settings: Settings) -> None:
    def room() -> bool:
        with transaction("airflow") as connection:
            return waiting._ask(connection, "room", "any")

    assert not room()
    with transaction("owner") as connection:
        build.node(connection, capacity=1)
    assert room()
