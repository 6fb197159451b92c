"""A lease is renewed by a person, up to the goal run's deadline, once it lives; the audit log keeps who did."""

from __future__ import annotations

from datetime import datetime, timedelta

import psycopg
import pytest

from include.cli.person import transact
from include.database.unit_of_work import transaction
from include.errors import BadInput
from include.governance import commands
from include.governance.models import Operator
from include.leases import service as leases
from include.settings import Settings
from tests.leases.world import World


def renew(world: World, seconds: float) -> datetime | None:
    with transaction("cli") as connection:
        return leases.renew(connection, world.lease()["id"], seconds, "ada", "a test")


def test_more_time_up_to_the_deadline_and_no_more(settings: Settings) -> None:
    world = World(settings, 1)
    world.do("UPDATE leases SET expires_at = now() + interval '5 minutes'")
    before = world.lease()["expires_at"]
    assert renew(world, 600) == before + timedelta(seconds=600)
    deadline = world.one("SELECT deadline_at FROM goal_runs")
    assert renew(world, 86400) == deadline == world.lease()["expires_at"]
    assert renew(world, 60) is None and world.lease()["expires_at"] == deadline
    rows = world.do("SELECT actor, subject, detail FROM audit_log WHERE action = 'lease.renewed' ORDER BY position")
    assert [(row["actor"], row["subject"], row["detail"]["seconds"]) for row in rows] == [
        ("ada", "airlock-g1-t1-1", 600),
        ("ada", "airlock-g1-t1-1", 86400),
    ]


@pytest.mark.parametrize("over", ["revoked_at", "ended_at"])
def test_what_is_over_is_not_renewed(settings: Settings, over: str) -> None:
    world = World(settings, 1)
    world.do(f"UPDATE leases SET {over} = now()")
    before = world.lease()["expires_at"]
    assert renew(world, 60) is None and world.lease()["expires_at"] == before
    assert world.one("SELECT count(*) FROM audit_log") == 0


def test_control_a_worker_that_has_less_rights_cannot(settings: Settings) -> None:
    """The role of the command line may extend; the broker, which hears the worker, may not."""
    World(settings, 1)
    with transaction("cli") as connection:
        connection.execute("UPDATE leases SET expires_at = expires_at")
    with pytest.raises(psycopg.errors.InsufficientPrivilege), transaction("broker") as connection:
        connection.execute("UPDATE leases SET expires_at = expires_at")


def extend(key: str) -> list[str]:
    """Give the command as ada on the command line; the tasks that were extended."""
    ada = Operator(name="ada", via="command line")
    return [each.task for each in transact(lambda connection: commands.extend(connection, ada, "g1", key, 1))]


def test_the_command_extends_one_task_or_all(settings: Settings) -> None:
    world = World(settings, 3)
    world.do("UPDATE leases SET expires_at = now() + interval '5 minutes'")
    world.do("UPDATE leases SET ended_at = now() WHERE task_run = 'g1-t3'")
    assert extend("t2") == ["t2"]
    assert extend("") == ["t1", "t2"]
    with pytest.raises(BadInput, match="no task of it is at work"):
        extend("t3")
