"""A worker is told of its extended lease, once each time, and not of one that is not its own."""

from __future__ import annotations

from include.database.unit_of_work import transaction
from include.leases import service as leases
from tests.broker.conftest import Yard
from tests.conftest import wait_until


def test_an_extended_lease_is_told(yard: Yard) -> None:
    yard.broker()
    worker, other = yard.attempt(), yard.attempt()
    before = worker.wait_for("task.assign").payload.lease.expires_at
    other.wait_for("task.assign")
    ends = []
    for count in (1, 2):
        with transaction("cli") as connection:
            ends.append(leases.renew(connection, worker.lease, 300, "ada", "a test"))
        wait_until("it is told", lambda: len(told(worker)) == count, 10)  # noqa: B023
        look_again(yard)
        assert len(told(worker)) == count  # once
    assert told(worker) == ends and ends[1] > ends[0] > before  # type: ignore[operator]
    assert told(other) == []  # control: nobody extended this one


def look_again(yard: Yard) -> None:
    """The broker has looked through all leases once more, from beginning to end: it assigned in one look, and in the next."""
    for _ in range(2):
        yard.attempt().wait_for("task.assign")


def told(worker):  # type: ignore[no-untyped-def]
    return [m.payload.lease.expires_at for m in worker.inbox() if m.type == "capability.lease"]
