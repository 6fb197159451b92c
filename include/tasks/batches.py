"""What a broker writes of attempts and task runs: messages come in batches, so each change is one statement for many attempts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from include.database import queries
from include.database.unit_of_work import AsyncConnection
from include.tasks.models import AttemptRef, AttemptState, Failure, TaskRunState

_SQL = queries.load(__file__)
_LIVING = [AttemptState.SPAWNING, AttemptState.READY, AttemptState.WORKING, AttemptState.BLOCKED]


class LastWord(NamedTuple):
    """What a worker says last of its attempt: the commit that it handed in, or why it gives up."""

    state: AttemptState
    commit: str | None = None
    summary: str = ""
    failure: Failure | None = None
    reason: str = ""


async def ready(connection: AsyncConnection, attempts: Iterable[AttemptRef]) -> None:
    """Move the attempts of workers that the broker has heard for the first time to READY, and their tasks to EXECUTING."""
    await _move(connection, _SQL.move_attempts, attempts, [AttemptState.SPAWNING], AttemptState.READY)
    await _move(connection, _SQL.move_tasks, attempts, [TaskRunState.LEASED], TaskRunState.EXECUTING)


async def work(connection: AsyncConnection, attempts: Iterable[AttemptRef]) -> None:
    """Move the attempts of workers that say that they work to WORKING."""
    await _move(connection, _SQL.move_attempts, attempts, [AttemptState.READY], AttemptState.WORKING)


async def block(connection: AsyncConnection, attempts: Iterable[AttemptRef]) -> None:
    """Move the attempts of workers that wait for an answer, and their tasks, to BLOCKED."""
    await _move(connection, _SQL.move_attempts, attempts, [AttemptState.WORKING], AttemptState.BLOCKED)
    await _move(connection, _SQL.move_tasks, attempts, [TaskRunState.EXECUTING], TaskRunState.BLOCKED)


async def unblock(connection: AsyncConnection, attempts: Iterable[AttemptRef]) -> None:
    """Move the attempts of workers that have their answers, and their tasks, on from BLOCKED."""
    await _move(connection, _SQL.move_attempts, attempts, [AttemptState.BLOCKED], AttemptState.WORKING)
    await _move(connection, _SQL.move_tasks, attempts, [TaskRunState.BLOCKED], TaskRunState.EXECUTING)


async def finish(connection: AsyncConnection, attempt: AttemptRef, word: LastWord) -> None:
    """Write a worker's last word, once; its task waits for no answer any more."""
    await connection.execute(_SQL.finish, attempt._asdict() | word._asdict() | {"from": _LIVING})
    await _move(connection, _SQL.move_tasks, [attempt], [TaskRunState.BLOCKED], TaskRunState.EXECUTING)


async def say(connection: AsyncConnection, steps: Mapping[AttemptRef, str]) -> None:
    """Write what these workers say that they do now."""
    if steps:
        rows = [(*attempt, step) for attempt, step in steps.items()]
        await connection.execute(_SQL.say_steps, queries.columns("task_runs epochs steps", rows))


async def tell(connection: AsyncConnection, milestones: Iterable[tuple[AttemptRef, str]]) -> None:
    """Write milestones of attempts, in this order, for people to read."""
    if rows := [(*attempt, words) for attempt, words in milestones]:
        await connection.execute(_SQL.insert_milestones, queries.columns("task_runs epochs details", rows))


async def begin_at(connection: AsyncConnection, attempt: AttemptRef, first_turn: int) -> None:
    """Write which turn the worker of a resumed attempt asks for first."""
    await connection.execute(_SQL.set_first_turn, attempt._asdict() | {"first_turn": first_turn})


async def spend(connection: AsyncConnection, task_run: str | None, cost: int) -> None:
    """Add what a model call has cost (micro-USD) to its task run; None: the call was for no task."""
    if task_run is not None:
        await connection.execute(_SQL.spend, {"task_run": task_run, "cost": cost})


async def _move(connection: AsyncConnection, statement: str, attempts: Iterable[AttemptRef], from_: Sequence[str], to: str) -> None:
    if rows := sorted(set(attempts)):
        await connection.execute(statement, queries.columns("task_runs epochs", rows) | {"from": list(from_), "to": to})
