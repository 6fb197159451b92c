"""Controls of what the database is held to: a migration that loses something, and a judgement in another order, are seen."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import pytest

from include.database.unit_of_work import transaction
from include.settings import Settings
from tests.state import test_migrations, test_standing
from tests.state.test_migrations import old  # noqa: F401 - a fixture


def _breaks(monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """The migration also does this."""
    right: Callable[[Settings, Collection[tuple[str, str, str]]], Any] = test_migrations.migrate

    def migrate(settings: Settings, transitions: Collection[tuple[str, str, str]]) -> None:
        right(settings, transitions)
        with transaction("owner") as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    monkeypatch.setattr(test_migrations, "migrate", migrate)


@pytest.mark.parametrize("statement", ["DELETE FROM artifacts", "UPDATE leases SET tokens_used = tokens_used + 1"])
def test_control_a_migration_that_loses_or_changes_is_seen(
    old: Settings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
) -> None:
    _breaks(monkeypatch, statement)
    with pytest.raises(AssertionError):
        test_migrations.test_nothing_is_lost_on_the_way_to_the_newest_version(old)


def test_control_a_migration_that_forgets_the_guard_is_seen(old: Settings, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    _breaks(monkeypatch, "DROP TRIGGER guard ON attempts")
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_migrations.test_what_was_at_work_goes_on(old)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("l.tokens_used > l.max_tokens", "l.tokens_used >= l.max_tokens"),
        ("l.started_at IS NOT NULL AND l.heartbeat_at", "l.heartbeat_at"),  # silent before it was started
        ("WHEN l.kind <> 'work' THEN NULL", ""),
        ("THEN 'revoked'", "THEN 'revoked' WHEN l.tokens_used > l.max_tokens THEN 'tokens'"),  # hides what the warden ends
    ],
    ids=["a token early", "silent too early", "verify is work", "another order"],
)
def test_control_another_judgement_is_seen(settings: Settings, right: str, wrong: str) -> None:
    _replace("standing(leases, interval, interval, interval)", right, wrong)
    with pytest.raises(AssertionError):
        test_standing.test_every_term(settings)


def test_control_a_warden_that_ends_less_is_seen(settings: Settings) -> None:
    _replace("what_is_over(text, interval, interval)", "s IN ('expired', 'unwatched')", "s IN ('expired')")
    with pytest.raises(AssertionError):
        test_standing.test_what_the_warden_ends_is_what_stands_so(settings)


def _replace(function: str, right: str, wrong: str) -> None:
    """Give the database another version of a function."""
    with transaction("owner") as connection:
        row = connection.execute(f"SELECT pg_get_functiondef('{function}'::regprocedure) AS text").fetchone()  # type: ignore[call-overload]
        assert row is not None and right in row["text"]
        connection.execute(row["text"].replace(right, wrong))
