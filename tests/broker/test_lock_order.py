"""Nobody waits in a circle: everybody locks a goal run before its task runs, a task run before its attempts and leases (docs/architecture.md).

Each piece of work is stopped at a row that the test holds; while it waits there, it must hold nothing that comes later in the order. The test
asks for those rows without waiting: had the work taken one of them first, the two would wait for each other.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from include.broker import assignments, calls, inbox, money, questions
from include.broker.kinds import question
from include.broker.models import Call, Pending, Usage
from include.broker.process import _SQL, Process
from include.clock import new_id, now
from include.database.unit_of_work import transaction
from include.goals import report
from include.goals import service as goals
from include.local.shutdown import revoke_what_is_at_work
from include.messages import models
from include.messages.streams import Entry, Streams
from include.tasks import people, reworks, watching
from include.tasks import service as tasks
from include.tasks.models import AttemptRef, Failure
from include.tasks.reworks import Asker
from include.tasks.watching import Watcher
from tests.conftest import wait_until
from tests.kit.scale import patience

OWNER = "jarvis/1"
LATER = {"goal_runs": ("task_runs", "attempts", "leases"), "task_runs": ("attempts", "leases")}
Work = Callable[[], Any]


class Case:
    """A live attempt that says things, spends, is watched, and is ended by people; one method a piece of work, each as its process does it."""

    def __init__(self, yard: Any) -> None:
        self.yard, self.settings = yard, yard.settings
        self.worker = yard.attempt()
        self.task_run, self.run = self.worker.task_run, self.worker.task_run.rpartition("-")[0]
        self.reserved = self.brokers(lambda c: money.reserve(c, self.call(), 1_000, OWNER, False))
        self.brokers(lambda c: money.mark_sent(c, self.reserved, OWNER))
        asked = new_id()
        self.pending = Pending(task_run=self.task_run, epoch=1, message_id=asked, type="question", idempotency_key="k", seq=1)
        yard.rows("INSERT INTO questions (message_id, task_run, epoch, question, options, context, urgency)"
                  " VALUES (%s, %s, 1, 'Which?', '[]', '', 'blocking')", asked, self.task_run)  # fmt: skip

    def call(self) -> Call:
        return Call(request=str(new_id()), agent="jarvis", goal_run=self.run, task_run=self.task_run, epoch=1, lease=self.worker.lease,
                    purpose="work", model="claude-sonnet-5-5", address="a", body={}, max_tokens=100)  # fmt: skip

    def brokers(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        async def once() -> Any:
            async with await psycopg.AsyncConnection.connect(self.settings.dsn("broker"), row_factory=dict_row) as connection:
                return await work(connection)

        return asyncio.run(once())

    # -- the broker ------------------------------------------------------------------------------------------------------

    def take(self) -> None:
        messages = [
            self.worker.make(models.Progress(status="working", step="one")),
            self.worker.make(models.TaskComplete(summary="s", commit="b" * 40)),
        ]
        entries = [Entry(self.task_run, f"{n}-1", body, signature) for n, (_, body, signature) in enumerate(messages)]
        taken = self.brokers(lambda c: inbox.take(c, "jarvis", entries, now()))
        assert len(taken.done) == 2

    def reserve(self) -> None:
        assert self.brokers(lambda c: money.reserve(c, self.call(), 1_000, OWNER, False))

    def settle(self) -> None:
        assert self.brokers(lambda c: money.settle(c, self.reserved, OWNER, Usage(input_tokens=10, output_tokens=10), 1, False))

    def answer(self) -> None:
        self.brokers(lambda c: questions.keep(c, "jarvis", self.pending, "This one.", "m"))

    def refuse(self) -> None:
        """A question's call does not fit; the worker is told so in the same transaction."""
        process, asker = Process("jarvis", self.settings), question._Asking(self.call(), self.pending)
        assert self.brokers(lambda c: calls._reserve(c, process, asker.call, 10**9, asker)) is None
        assert "the lease's tokens" in self.yard.one("SELECT answer FROM questions")

    def assign(self) -> None:
        async def work(connection: Any) -> bool:
            streams = Streams(self.settings.valkey_url("broker"), "c")
            try:
                return await assignments.assign(connection, streams, "jarvis", self.worker.attempt, self.settings)
            finally:
                await streams.close()

        assert self.brokers(work)

    # -- Airflow's steps, and people -------------------------------------------------------------------------------------

    def look(self) -> None:
        with transaction("airflow") as connection:
            watching.look(connection, self.settings, self.run, "parser", Watcher("ti", 0, 0.0))

    def fail(self) -> None:
        with transaction("airflow") as connection:
            reworks.fail_attempt(connection, self.settings, Asker(AttemptRef(self.task_run, 1), "ti"), Failure.LOST, "It was lost.")

    def mark_the_step(self) -> None:
        with transaction("airflow") as connection:
            assert people.end_unwatched(connection, tasks.lock(connection, self.run, "parser"), "ti", 1, now())

    def report(self) -> None:
        with transaction("airflow") as connection:
            report.close(connection, self.run, "r")

    def cancel_the_goal(self) -> None:
        with transaction("cli") as connection:
            goals.lock(connection, self.run, "r")
            for task in tasks.lock_all(connection, self.run):
                tasks.cancel(connection, task, "a person did")

    def down(self) -> None:
        revoke_what_is_at_work(self.settings, 0.1)

    # -- controls --------------------------------------------------------------------------------------------------------

    def lease_first(self) -> None:
        """As the consumer locked it once."""
        with transaction("owner") as connection:
            connection.execute("SELECT 1 FROM leases WHERE task_run = %s ORDER BY id FOR NO KEY UPDATE", [self.task_run])
            connection.execute("UPDATE task_runs SET updated_at = clock_timestamp() WHERE id = %s", [self.task_run])

    def task_before_goal(self) -> None:
        with transaction("owner") as connection:
            connection.execute("SELECT 1 FROM task_runs WHERE id = %s FOR NO KEY UPDATE", [self.task_run])
            connection.execute("SELECT 1 FROM goal_runs WHERE id = %s FOR NO KEY UPDATE", [self.run])


@contextmanager
def at_work(work: Work) -> Iterator[threading.Thread]:
    problems: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(patience(20))
    assert not thread.is_alive() and not problems, problems


def stopped_at(case: Case, table: str, work: Work) -> tuple[bool, list[str]]:
    """Whether the work waited for the row of this table, and which later rows it held then."""
    ids = {"goal_runs": ("id", case.run), "task_runs": ("id", case.task_run), "attempts": ("task_run", case.task_run),
           "leases": ("task_run", case.task_run)}  # fmt: skip
    with psycopg.connect(case.settings.dsn("owner"), autocommit=True) as look, psycopg.connect(case.settings.dsn("owner")) as holder:
        holder.execute(f"SELECT 1 FROM {table} WHERE {ids[table][0]} = %s FOR NO KEY UPDATE", [ids[table][1]])
        waits = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"

        def blocked() -> bool:
            return look.execute(waits, [holder.info.backend_pid]).fetchone() is not None

        with at_work(work) as thread:
            try:
                wait_until("it waits or ends", lambda: blocked() or not thread.is_alive(), 20)
                waited = thread.is_alive() and blocked()
                held = [later for later in LATER[table] if not _free(look, later, *ids[later])] if waited else []
            finally:
                holder.rollback()
        return waited, held


def _free(look: psycopg.Connection[Any], table: str, column: str, value: str) -> bool:
    try:
        look.execute(f"SELECT 1 FROM {table} WHERE {column} = %s FOR NO KEY UPDATE NOWAIT", [value])
    except psycopg.errors.LockNotAvailable:
        return False
    return True


WAITS = {
    "take": {"task_runs"}, "reserve": {"goal_runs"}, "settle": {"goal_runs", "task_runs"}, "answer": {"task_runs"},
    "refuse": {"goal_runs", "task_runs"}, "assign": {"task_runs"},
    "look": {"task_runs"}, "fail": {"task_runs"}, "mark_the_step": {"task_runs"}, "report": {"goal_runs", "task_runs"},
    "cancel_the_goal": {"goal_runs", "task_runs"}, "down": set(),
}  # fmt: skip
"""Which rows each piece of work locks: where none is named, it must pass by a held one without waiting."""


@pytest.mark.parametrize("table", LATER)
@pytest.mark.parametrize("name", WAITS)
def test_what_waits_holds_nothing_that_comes_later(yard, name: str, table: str) -> None:  # type: ignore[no-untyped-def]
    case = Case(yard)
    waited, held = stopped_at(case, table, getattr(case, name))
    assert held == []
    assert waited == (table in WAITS[name])


@pytest.mark.parametrize(
    ("name", "table", "later"), [("lease_first", "task_runs", "leases"), ("task_before_goal", "goal_runs", "task_runs")]
)
def test_control_the_other_order_is_seen(yard, name: str, table: str, later: str) -> None:  # type: ignore[no-untyped-def]
    case = Case(yard)
    assert stopped_at(case, table, getattr(case, name)) == (True, [later])


def test_recovery_of_many_calls_locks_task_runs_in_one_order(yard) -> None:  # type: ignore[no-untyped-def]
    """Calls were reserved in another order than that of their task runs."""
    run = yard.goal_run()
    workers = [yard.attempt(run, key) for key in ("c", "a", "b")]
    with transaction("owner") as connection:
        for worker in workers:
            connection.execute(
                "INSERT INTO model_calls (id, agent, goal_run, task_run, epoch, lease, request, purpose, model, address, offline, owner,"
                " reserved_micro, input_tokens, output_tokens, price_table) VALUES (%s, 'jarvis', %s, %s, 1, %s, %s, 'work', 'm', 'a', false,"
                " 'dead', 0, 0, 0, '')", [new_id(), run, worker.task_run, worker.lease, str(new_id())])  # fmt: skip
        of = {row["id"]: row["task_run"] for row in connection.execute("SELECT id, task_run FROM model_calls")}
        rows = connection.execute(_SQL.open_calls_of, {"agent": "jarvis", "dead": "dead"}).fetchall()
    assert [of[row["id"]] for row in rows] == [f"{run}-{key}" for key in ("a", "b", "c")]


def test_control_a_refusal_that_keeps_its_locks_is_seen(yard, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    """Without the savepoint, what did not fit leaves the lease locked while the worker is told so."""
    case = Case(yard)
    monkeypatch.setattr(psycopg.AsyncConnection, "transaction", lambda _: nullcontext())
    assert stopped_at(case, "task_runs", case.refuse) == (True, ["leases"])
