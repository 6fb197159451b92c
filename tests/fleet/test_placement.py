"""Which node gets a sandbox: workers by free places, verifications even without; never a node that is silent, never a strange warden."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.database.unit_of_work import transaction
from include.errors import Unavailable
from include.fleet import service as fleet
from include.fleet.models import Load, Need
from include.fleet.rules import chosen
from include.leases import service as leases
from include.leases.models import Subject
from include.sandbox.client import ensure_sandbox
from include.settings import Settings
from tests.kit import build
from tests.leases.world import World


def node(name: str, capacity: int, workers: int, verifying: int = 0) -> Load:
    return Load(name=name, rung="bubblewrap", capacity=capacity, workers=workers, sandboxes=workers + verifying)


@pytest.mark.parametrize(
    ("nodes", "work", "verify"),
    [
        ([], None, None),
        ([node("a", 4, 0), node("b", 8, 0)], "b", "b"),  # most room
        ([node("b", 4, 1), node("a", 4, 1)], "a", "a"),  # equal room: by name
        ([node("a", 4, 4), node("b", 4, 4, 1)], None, "a"),  # all are full: work waits, a verification does not
        ([node("a", 4, 4), node("b", 1, 0, 3)], "b", "a"),  # a verification takes no place, and yet it is load
        ([node("a", 2, 0, 2), node("b", 2, 1)], "b", "b"),
    ],
)
def test_the_rule(nodes: list[Load], work: str | None, verify: str | None) -> None:
    for need, wanted in ((Need.WORK, work), (Need.VERIFY, verify)):
        found = chosen(nodes, need)
        assert (found.name if found else None) == wanted, need


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    """Three workers on the node ``local``, which has three places."""
    made = World(settings, 3)
    made.do("UPDATE nodes SET capacity = 3")
    yield made
    made.database.close()


def placed(need: Need) -> str | None:
    with transaction("airflow") as connection:
        found = fleet.place(connection, need)
        assert fleet.has_room(connection) is (fleet.place(connection, Need.WORK) is not None)
    return found.node if found else None


def verification() -> str:
    with transaction("airflow") as connection:
        return leases.grant_verify(connection, Subject("g1", "c"), 60, "ti").node


def test_verifications_go_where_most_room_is_and_do_not_wait_for_workers(world: World) -> None:
    assert (placed(Need.WORK), placed(Need.VERIFY)) == (None, "local")
    build.node(world.database, "another", 2, "container")
    assert (placed(Need.WORK), placed(Need.VERIFY)) == ("another", "another")
    assert [verification() for _ in range(4)] == ["another", "another", "another", "local"]
    assert placed(Need.WORK) == "another"  # verifications took none of its places


def test_control_a_rule_by_which_verifications_take_a_place_has_them_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "chosen", lambda nodes, _: chosen(nodes, Need.WORK))
    assert placed(Need.VERIFY) is None
    with pytest.raises(Unavailable):
        verification()


def test_a_silent_node_gets_nothing(world: World) -> None:
    build.node(world.database, "another", 99, "container")
    world.do("UPDATE nodes SET heartbeat_at = now() - interval '31 seconds' WHERE name = 'another'")
    assert (placed(Need.WORK), placed(Need.VERIFY)) == (None, "local")
    with transaction("cli") as connection:
        assert [(each.name, each.alive) for each in fleet.nodes(connection)] == [("another", False), ("local", True)]
    world.do("UPDATE nodes SET heartbeat_at = now() - interval '31 seconds'")
    assert placed(Need.VERIFY) is None
    with pytest.raises(Unavailable, match="no warden has given a heartbeat for 30 s"):
        verification()


def test_the_warden_of_the_placed_node_is_asked_and_no_other(settings: Settings) -> None:
    assert fleet.address_of(settings.node) == f"unix://{settings.warden_socket}"
    with pytest.raises(Unavailable, match="placed on node another"):
        ensure_sandbox("another", "airlock-v-1")
