"""An operator's commands: who may not is refused and changes nothing; what is done is done whole and stands in the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from include.airflow_api.client import Airflow
from include.cli.person import look, transact
from include.errors import BadInput, NotFound, Refused
from include.goals.rules import SUBMIT, submission_run
from include.governance import commands, service
from include.governance.models import Command, LoggedEntry, Operator, Way
from include.governance.rules import MAY, may
from include.leases import operators
from include.settings import Settings
from include.views import goals
from tests.airflow_api.server import Asked, Said, airflow_that_answers
from tests.conftest import free_port
from tests.leases.world import World

ADA = Operator(name="ada", via="command line")
SUPERVISOR = Operator(name="supervisor", via="supervisor")


def log() -> list[LoggedEntry]:
    return look(lambda connection: service.newest(connection, 50))


def answer(asked: Asked) -> Said:
    return Said(201, {"access_token": "t"}) if asked.path == "/auth/token" else Said(200)


def cancel(settings: Settings, run: str, operator: Operator = ADA) -> tuple[Any, list[Asked]]:
    """Cancel beside an Airflow that takes every mark; what it did, and what Airflow was asked."""
    settings = settings.model_copy(update={"api_port": free_port()})
    with airflow_that_answers(settings.api_port, answer) as asked, Airflow(settings) as airflow:
        return commands.cancel(commands.Reach(transact, airflow), operator, run), asked[1:]


def test_every_command_is_somebodys_and_every_way_has_its_own() -> None:
    given = {command for commands_ in MAY.values() for command in commands_}
    assert given == set(get_args(Command)) and set(MAY) == set(get_args(Way))
    assert may(ADA, "cancel") and not may(ADA, "stop") and may(SUPERVISOR, "stop") and not may(SUPERVISOR, "cancel")


def test_nobody_is_no_operator() -> None:
    with pytest.raises(ValidationError):
        Operator(name="", via="command line")
    with pytest.raises(ValidationError):
        Operator(name="ada", via="a worker")  # type: ignore[arg-type]


def test_who_may_not_is_refused_and_changes_nothing(settings: Settings, tmp_path: Path) -> None:
    world = World(settings, 2)
    before = world.do("SELECT l.*, t.state FROM leases l JOIN task_runs t ON t.id = l.task_run ORDER BY t.key")
    attempts = (
        lambda: cancel(settings, "g1", SUPERVISOR),
        lambda: transact(lambda connection: commands.extend(connection, SUPERVISOR, "g1", "", 5)),
        lambda: commands.prune(transact, settings, SUPERVISOR, None, None),
        lambda: transact(lambda connection: commands.add_repository(connection, SUPERVISOR, "other", tmp_path)),
        lambda: transact(lambda connection: commands.stop(connection, ADA, "a whim")),
    )
    for attempt in attempts:
        with pytest.raises(Refused, match="may not"):
            attempt()
    assert world.do("SELECT l.*, t.state FROM leases l JOIN task_runs t ON t.id = l.task_run ORDER BY t.key") == before and log() == []


def test_a_cancel_ends_the_goal_its_tasks_and_its_runs_in_airflow(settings: Settings) -> None:
    world = World(settings, 2)
    done, asked = cancel(settings, "g1")
    assert (done.was, done.ended) == ("RUNNING", True)
    words = "cancelled by ada on the command line"
    assert world.do("SELECT state, reason FROM goal_runs") == [{"state": "CANCELLED", "reason": words}]
    assert world.do("SELECT DISTINCT state, reason FROM task_runs") == [{"state": "CANCELLED", "reason": words}]
    assert world.one("SELECT count(*) FROM leases WHERE revoked_at IS NULL") == 0
    assert [(one.method, one.path, one.body) for one in asked] == [
        ("PATCH", "/api/v2/dags/goal_sample/dagRuns/run1", {"state": "failed"}),
        ("PATCH", f"/api/v2/dags/{SUBMIT}/dagRuns/{submission_run('k')}", {"state": "failed"}),
    ]
    (entry,) = log()
    assert (entry.actor, entry.action, entry.subject) == ("ada", "goal.cancelled", "g1")
    assert entry.detail == {"reason": words, "was": "RUNNING", "via": "command line"}


def test_control_a_second_cancel_only_finds_it_cancelled(settings: Settings) -> None:
    World(settings, 1)
    cancel(settings, "g1")
    again, asked = cancel(settings, "g1")
    assert (again.was, again.ended) == ("CANCELLED", False) and len(asked) == 2 and len(log()) == 1
    with pytest.raises(NotFound, match="does not exist"):
        cancel(settings, "g2")


def test_a_stop_revokes_whatever_is_at_work_once(settings: Settings) -> None:
    world = World(settings, 3)
    world.do("UPDATE leases SET ended_at = now() WHERE task_run = 'g1-t3'")
    with pytest.raises(BadInput, match="is no name"):  # control: a command that fails leaves no entry
        transact(lambda connection: commands.add_repository(connection, ADA, "No Name", Path("/nowhere")))
    gone = transact(lambda connection: commands.stop(connection, SUPERVISOR, "shutdown"))
    assert gone == ["airlock-g1-t1-1", "airlock-g1-t2-1"] and transact(operators.any_live)
    assert transact(lambda connection: commands.stop(connection, SUPERVISOR, "shutdown")) == []
    assert world.do("SELECT DISTINCT revoke_reason AS why FROM leases WHERE ended_at IS NULL") == [{"why": "shutdown"}]
    assert sorted((entry.actor, entry.action, entry.subject) for entry in log()) == [
        ("supervisor", "lease.revoked", sandbox) for sandbox in gone
    ]  # fmt: skip
    world.do("UPDATE leases SET ended_at = now()")
    assert not transact(operators.any_live) and look(lambda connection: goals.live_sandboxes(connection, "g1")) == []


def test_a_repository_is_added_and_a_prune_is_told(settings: Settings, tmp_path: Path) -> None:
    settings = settings.model_copy(update={"home": tmp_path})
    added = transact(lambda connection: commands.add_repository(connection, ADA, "other", tmp_path))
    assert added.listed and added.path == str(tmp_path)
    gone = commands.prune(transact, settings, ADA, None, None)
    assert [(entry.action, entry.subject, entry.detail) for entry in log()] == [
        ("pruned", "goal runs", {**gone, "via": "command line"}),
        ("repository.added", "other", {"path": str(tmp_path), "via": "command line"}),
    ]


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), 1e308, -1, 0])
def test_more_time_is_a_time(settings: Settings, minutes: float) -> None:
    with pytest.raises(BadInput) as refused:
        transact(lambda connection: commands.extend(connection, ADA, "g1", "", minutes))
    assert refused.value.field == "minutes"
    with pytest.raises(BadInput) as refused:  # control: five minutes are; there is only nothing to give them to
        transact(lambda connection: commands.extend(connection, ADA, "g1", "", 5))
    assert refused.value.field == "goal"
