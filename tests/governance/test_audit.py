"""The audit log: every forgery of every entry is found, by a walk over every link and a head kept elsewhere; writers do not disturb each other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row

from include.database.unit_of_work import transaction
from include.goals import intake
from include.goals.models import GoalRequest
from include.governance import rules, service
from include.governance.models import Chain, Link
from include.policy import service as policy
from include.policy.models import AdmissionRequest
from include.settings import Settings
from tests.conftest import ROOT
from tests.kit import build
from tests.kit.scale import count, patience

ENTRIES = count(100, 1_000)
NASTY = ["", "ü 7 x", "line\nbreak", "12 34 56", "\U0001f512", 'quote" \\ {}', "a" * 500]


def _fill(entries: int) -> Chain:
    """A log of so many entries, a hundred a transaction, with text that a careless form of hashing would mix up."""
    for start in range(0, entries, 100):
        with transaction("airflow") as connection:
            for number in range(start, min(start + 100, entries)):
                text = NASTY[number % len(NASTY)]
                service.record(
                    connection, f"actor {text}", "goal.cancelled", f"g{number}", {"reason": text, "n": number, "f": 0.1, text: None}
                )
    with transaction("cli") as connection:
        return service.verify(connection)


def _links() -> list[Link]:
    with transaction("cli") as connection:
        return list(service._links(connection))


def _rehashed(links: list[Link], start: int) -> list[Link]:
    """From this entry on hashed anew, so that the chain itself is whole again."""
    made = links[:start]
    for number, link in enumerate(links[start:], start + 1):
        new = link._replace(position=number, previous=made[-1].hash if made else rules.NOTHING)
        made.append(new._replace(hash=rules.link_hash(new)))
    return made


def _modify(links: list[Link], at: int) -> list[Link]:
    return [*links[:at], links[at]._replace(detail='{"reason": "another"}'), *links[at + 1 :]]


def _delete(links: list[Link], at: int) -> list[Link]:
    return [*links[:at], *(link._replace(position=(link.position or 0) - 1) for link in links[at + 1 :])]


def _insert(links: list[Link], at: int) -> list[Link]:
    forged = links[at]._replace(id="00000000-0000-0000-0000-000000000000", actor="nobody")
    forged = forged._replace(hash=rules.link_hash(forged))
    return [*links[:at], forged, *(link._replace(position=(link.position or 0) + 1) for link in links[at:])]


def _swap(links: list[Link], at: int) -> list[Link]:
    other = at + 1 if at + 1 < len(links) else at - 1
    first, second = sorted((at, other))
    swapped = [links[second]._replace(position=first + 1), links[first]._replace(position=second + 1)]
    return [*links[:first], *swapped, *links[second + 1 :]]


FORGERIES: dict[str, Callable[[list[Link], int], list[Link]]] = {
    "modify": _modify,
    "delete": _delete,
    "insert": _insert,
    "swap": _swap,
    "re-hash from here": lambda links, at: _rehashed(_modify(links, at), at),
    "truncate the tail": lambda links, at: links[:at],
}
NEED_THE_HEAD = {"re-hash from here", "truncate the tail"}


def _both_ends_only(links: list[Link], head: str) -> bool:
    """The control: a verifier that looks at the first and the last link, as a well-known ledger's did. True: it sees nothing wrong."""
    if not links:
        return head == rules.NOTHING
    first, last = links[0], links[-1]
    return rules.link_hash(first) == first.hash and first.previous == rules.NOTHING and rules.link_hash(last) == last.hash == head


@pytest.mark.sized
def test_every_forgery_of_every_entry_is_found(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    chain = _fill(ENTRIES)
    assert (chain.whole, chain.entries) == (True, ENTRIES)
    links = _links()
    told = []
    for name, forge in FORGERIES.items():
        found = without_head = missed_by_both_ends = 0
        for at in range(ENTRIES):
            forged = forge(links, at)
            found += not rules.walk(forged, chain.head).whole
            missed_by_both_ends += _both_ends_only(forged, chain.head)
            if name in NEED_THE_HEAD and at % (ENTRIES // 20) == 0:
                without_head += not rules.walk(forged).whole
        told.append(f"{name}: {found} of {ENTRIES} (both ends only: {ENTRIES - missed_by_both_ends})")
        assert found == ENTRIES and without_head == 0
        assert (missed_by_both_ends > 0.9 * ENTRIES) == (name in ("modify", "swap")), name  # control: a forged middle passes there
    with capsys.disabled():
        print("\n  " + "\n  ".join(told))


REAL = {  # what a superuser with the triggers off can do to the table itself; %(at)s is a position
    "modify": "UPDATE audit_log SET actor = 'x' WHERE position = %(at)s",
    "modify its time": "UPDATE audit_log SET at = at + interval '1 microsecond' WHERE position = %(at)s",
    "delete": "DELETE FROM audit_log WHERE position = %(at)s",
    "insert beside": "INSERT INTO audit_log (actor, action, subject) SELECT actor, action, subject FROM audit_log WHERE position = %(at)s",
    "re-hash from here": """DO $$ DECLARE e audit_log; before text; BEGIN
        SELECT previous INTO before FROM audit_log WHERE position = %(at)s;
        UPDATE audit_log SET actor = 'x' WHERE position = %(at)s;
        FOR e IN SELECT * FROM audit_log WHERE position >= %(at)s ORDER BY position LOOP
          e.previous := before; e.hash := audit_hash(e); before := e.hash;
          UPDATE audit_log SET previous = e.previous, hash = e.hash WHERE id = e.id;
        END LOOP; END $$""",
    "truncate the tail": "DELETE FROM audit_log WHERE position >= %(at)s",
}


def test_forgeries_in_the_table_itself(settings: Settings) -> None:
    chain = _fill(100)
    admin = settings.dsn("owner").replace("airlock_owner", "postgres")
    with psycopg.connect(admin, row_factory=dict_row) as superuser:
        for name, statement in REAL.items():
            for at in (1, 37, 100):
                with superuser.transaction(force_rollback=True):
                    superuser.execute("SET LOCAL session_replication_role = replica")
                    superuser.execute(statement.replace("%(at)s", str(at)))  # type: ignore[call-overload]
                    seen = service.verify(superuser, chain.head)
                    assert not seen.whole, (name, at)
                    alone = service.verify(superuser)
                    assert alone.whole == (name in NEED_THE_HEAD or (name, at) == ("delete", 100)), (name, at)
        assert service.verify(superuser, chain.head).whole


def test_a_head_of_before_is_still_there_after_more(settings: Settings) -> None:
    first = _fill(10)
    second = _fill(10)
    with transaction("cli") as connection:
        assert service.verify(connection, first.head) == second == (20, second.head, None, None)
        assert not service.verify(connection, "f" * 64).whole
        assert service.verify(connection, rules.NOTHING).whole
        newest = service.newest(connection, 3)
    assert [entry.position for entry in newest] == [20, 19, 18] and newest[0].hash == second.head


@pytest.mark.sized
def test_eight_writers_at_once_and_the_chain_is_whole(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    writers, each = 8, count(50, 100)
    errors: list[Exception] = []

    def write(number: int) -> None:
        rng = random.Random(number)
        try:
            with psycopg.connect(settings.dsn("airflow"), row_factory=dict_row) as connection:
                for entry in range(each):
                    with connection.transaction(force_rollback=rng.random() < 0.2) as _:
                        service.record(connection, f"w{number}", "goal.cancelled", str(entry))
                        connection.execute("SELECT 1")
                        if rng.random() < 0.1:
                            service.record(connection, f"w{number}", "goal.cancelled", f"{entry} again")
        except Exception as error:
            errors.append(error)

    begun = time.monotonic()
    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begun
    with transaction("cli") as connection:
        chain = service.verify(connection)
        rows = connection.execute("SELECT count(*) AS n, max(position) AS last FROM audit_log").fetchone()
    with capsys.disabled():
        print(f"\n  {writers} writers, {chain.entries} entries in {took:.1f} s: {chain.entries / took:,.0f} a second, one a transaction")
    assert not errors and chain.whole and rows == {"n": chain.entries, "last": chain.entries}  # a rolled-back entry leaves no gap
    assert writers * each * 0.7 < chain.entries < writers * each * 1.1


def test_an_entry_that_is_not_committed_holds_nobody_up(settings: Settings) -> None:
    # The chain's lock is taken at commit: an open transaction that recorded something blocks no other one.
    with psycopg.connect(settings.dsn("airflow"), row_factory=dict_row) as slow:
        service.record(slow, "slow", "goal.cancelled", "g1")
        with transaction("cli") as connection:
            connection.execute(f"SET LOCAL statement_timeout = '{patience(2):.0f}s'")
            service.record(connection, "fast", "goal.cancelled", "g2")
    with transaction("cli") as connection:
        assert [entry.actor for entry in service.newest(connection, 9)] == ["slow", "fast"]
        assert service.verify(connection).whole


def test_what_decides_is_recorded(settings: Settings, tmp_path: Path) -> None:
    from tests.repository.people import make_person

    settings = settings.model_copy(update={"home": tmp_path / "home"})
    person = make_person(tmp_path / "person")
    with transaction("owner") as connection:
        build.ground(connection, person.path)
    request = GoalRequest(goal="Add a parser", repository="sample", key="k")
    with transaction("airflow") as connection:
        run = intake.submit(connection, settings, request, "ada", unlisted=False).run.id
        intake.submit(connection, settings, request, "ada", unlisted=False)  # the same again is not a second goal
        asked = AdmissionRequest(agent="jarvis", agent_capabilities=("test",), task_run=f"{run}-a", capabilities=("build",), touches=(),
                                 worker="w", worker_known=True, left_micro=1, seconds_left=1)  # fmt: skip
        decision = policy.decide_admission(connection, asked, run, 1)
    with transaction("cli") as connection:
        rows = service.newest(connection, 9)
    assert [(row.actor, row.action, row.subject) for row in rows] == [
        ("policy", "policy.decided", f"{run}-a"), ("ada", "goal.submitted", run)]  # fmt: skip
    said = rows[0].detail
    assert said["decision"] == decision.decision == "forbid" and said["rules"] == ["capability-beyond-agent"]
    assert said["policy_sha256"] == decision.policy_sha256


def test_every_code_that_stores_a_decision_also_records_it() -> None:
    # The broker's own decisions stand in include/broker/inbox.py; whoever inserts into the table of decisions must call the audit log.
    storing = [path for path in (ROOT / "include").rglob("*.py") if "insert_decision" in path.read_text()]
    assert storing and all("governance.record(" in path.read_text() for path in storing)
