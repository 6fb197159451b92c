"""Admit a task run: one transaction revokes what still lives, lets policy decide, and grants the next epoch with its lease."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from include import faults
from include.agents import service as agents
from include.catalog import store as catalog
from include.database.unit_of_work import Connection
from include.fleet import service as fleet
from include.fleet.models import Need, Placement
from include.goals.models import LockedGoalRun
from include.leases import service as leases
from include.leases.models import Terms, Work
from include.plans.models import Plan, Task
from include.policy import service as policy
from include.policy.models import AdmissionRequest
from include.repository import bundles, mirror, trees
from include.settings import Settings
from include.tasks import resume, reworks
from include.tasks import service as tasks
from include.tasks.models import ENDED_RUNS, LIVE, LockedTaskRun, TaskRunState
from include.tasks.resume import Left, Taken

OpenRun = Callable[[], LockedGoalRun]


class Admission(NamedTuple):
    """What became of the request to be admitted, and the words for the step's log.

    ``wait`` goes with the query that says when to ask again and its subject, ``take_in`` with what is to be taken in first.
    """

    outcome: Literal["admitted", "merged", "wait", "take_in", "refused"]
    words: str
    query: Literal["", "due", "over", "room"] = ""
    subject: str = ""
    left: Left | None = None


class Knock(NamedTuple):
    """An admit step of Airflow that asks for a task of a plan to be let in."""

    document: str  # JSON of the plan that the goal run follows
    key: str  # of the task
    ti_id: str  # the step's task-instance id
    # How many tries Airflow allows the step now. A clear, by a person or by the door, raises it; a try after a kill, or after Airflow
    # took a slow step for dead, does not. Only after a clear may an ended goal run be opened again, and only then is an attempt that
    # lives not the one that this step granted before.
    tries: int
    retries: int  # what ``tries`` is before any clear

    @property
    def task(self) -> Task:
        """The task that is asked for."""
        return next(task for task in Plan.model_validate_json(self.document).tasks if task.key == self.key)


class _Asked(NamedTuple):
    """What is to be let in: a task of a goal run that is open, both locked, by its admit step."""

    run: LockedGoalRun
    row: LockedTaskRun
    task: Task
    knock: Knock


class _Start(NamedTuple):
    """What an attempt begins with."""

    commit: str
    resumed_from: int | None
    words: str


def entry(
    connection: Connection, settings: Settings, run: LockedGoalRun, knock: Knock, open_run: OpenRun, taken: Taken | None = None
) -> Admission:
    """Let the next attempt of a task run in, or say why not.

    Args:
        run: that the task belongs to.
        knock: who asks, for which task.
        open_run: brings the goal run to RUNNING and returns it; called only when the task may enter.
        taken: what was taken in of the attempt that is resumed, when ``take_in`` was asked for.

    Returns:
        ``admitted``; ``merged`` (nothing is left to do); ``wait``; ``take_in``; ``refused`` (the reason is stored).
    """
    row = tasks.lock(connection, run.id, knock.key)
    cleared, by_person = _cleared(connection, row, knock)
    if answer := _need_not_enter(run, row, cleared, by_person):
        return answer
    if missing := tasks.unmerged(connection, run.id, knock.task.depends_on):
        words = f"Task {row.key} needs {', '.join(missing)} merged first, and they are not, whatever Airflow shows. Clear their steps."
        return Admission("refused", words)
    if not by_person and (seconds := reworks.wait_until_due(connection, row, knock.ti_id)):
        return Admission("wait", f"The next attempt is due in {seconds} s: {row.reason}", "due", row.id)
    if row.epoch:  # its place is room: an attempt that was cleared must not wait for itself
        leases.revoke_task(connection, row.id, "its steps were cleared in Airflow" if by_person else "a newer attempt took over")
    source = resume.goes_on_from(connection, row)
    left = resume.left_behind(connection, row.attempt._replace(epoch=source)) if source else None
    if left is not None and not left.over:
        return Admission("wait", f"Attempt {left.epoch} is being ended; what it committed is kept.", "over", str(left.lease))
    node = fleet.place(connection, Need.WORK)
    if node is None:
        return Admission("wait", "All places are taken (or no warden is alive); waiting for room.", "room", "any")
    if left is not None and left.handed_in and (taken is None or taken.epoch != left.epoch):
        return Admission("take_in", f"Taking in what attempt {left.epoch} had committed.", left=left)
    asked = _Asked(open_run(), row, knock.task, knock)
    return _admit(connection, settings, asked, node, lambda: _start(connection, settings, asked, left, taken))


def _cleared(connection: Connection, row: LockedTaskRun, knock: Knock) -> tuple[bool, bool]:
    """Say whether the admit step was cleared since it granted the newest attempt, and whether a person did it."""
    since = tasks.cleared_since(connection, row.attempt, knock.tries)
    cleared = knock.tries > knock.retries if since is None else since
    return cleared, cleared and not reworks.given_up_by_a_step(connection, row.attempt)


def _need_not_enter(run: LockedGoalRun, row: LockedTaskRun, cleared: bool, by_person: bool) -> Admission | None:
    """Answer for a task that is merged, may not be opened again, or was let in before its step was killed."""
    if row.merged_commit is not None:
        return Admission("merged", f"Task {row.key} is merged already as {row.merged_commit[:12]}; nothing is done again.")
    if run.state in ENDED_RUNS and not by_person:
        return Admission("refused", f"The goal run is {run.state}: {run.reason} Clear the step in Airflow to open it again.")
    if row.state in LIVE and not cleared:
        return Admission("admitted", f"Attempt {row.epoch} was admitted before this step was killed; it goes on.")
    return None


def _admit(connection: Connection, settings: Settings, asked: _Asked, node: Placement, start: Callable[[], _Start]) -> Admission:
    row = asked.row
    tasks.to_policy_check(connection, row)
    decision = policy.decide_admission(connection, _request(connection, asked), asked.run.id, row.epoch + 1)
    if decision.decision != "permit":
        escalate = {"budget-used-up", "deadline-over"} & set(decision.rules)
        tasks.set_state(connection, row, TaskRunState.ESCALATED if escalate else TaskRunState.FAILED, decision.reason)
        return Admission("refused", f"Policy forbids it ({', '.join(decision.rules) or decision.decided_by}): {decision.reason}.")
    return _grant(connection, settings, asked, node, start())


def _start(connection: Connection, settings: Settings, asked: _Asked, left: Left | None, taken: Taken | None) -> _Start:
    """Choose where the attempt begins: where a resumed one was, else the last accepted commit, else the goal branch."""
    run, row = asked.run, asked.row
    if left is not None and not left.handed_in:
        return _Start(left.input_commit, left.epoch, f"going on from attempt {left.epoch}, which had committed nothing")
    if left is not None and taken is not None and taken.commit:
        tasks.accept(connection, row.id, taken.commit)
        return _Start(taken.commit, left.epoch, f"going on from attempt {left.epoch}")
    if taken is not None and taken.commit is None:
        tasks.set_feedback(connection, row, f"Its commits were refused: {taken.words}")
    repository = mirror.path_of(settings, run.repository)
    commit = row.accepted_commit or trees.resolve(repository, f"refs/heads/{run.goal_branch}")
    return _Start(commit, None, f"starting over: {taken.words}" if taken else "starting afresh")


def _request(connection: Connection, asked: _Asked) -> AdmissionRequest:
    run, task = asked.run, asked.task
    return AdmissionRequest(
        agent=run.agent,
        agent_capabilities=tuple(agents.capabilities(connection, run.agent)),
        task_run=asked.row.id,
        capabilities=task.capabilities,
        touches=task.touches,
        worker=task.worker,
        worker_known=task.worker in catalog.names(),
        left_micro=run.left_micro,
        seconds_left=int(run.seconds_left),
    )


def _grant(connection: Connection, settings: Settings, asked: _Asked, node: Placement, start: _Start) -> Admission:
    run, row, task = asked.run, asked.row, asked.task
    bundles.export_bundle(settings, mirror.path_of(settings, run.repository), start.commit)
    leases.revoke_task(connection, row.id, "a newer attempt took over")
    attempt = tasks.new_attempt(connection, row, node, start.resumed_from, asked.knock.tries)
    terms = Terms(
        seconds=min(task.lease.max_minutes * 60, run.seconds_left),
        max_tokens=task.lease.max_tokens,
        max_micro=min(round(task.lease.max_usd * 1e6), run.left_micro),
        capabilities=task.capabilities,
    )
    grant = leases.grant_work(connection, node, Work(run.id, row.id, attempt.epoch, start.commit, terms, asked.knock.ti_id))
    faults.point("admit.grant.before-commit")
    where = f"on node {grant.node} ({grant.rung}), from commit {start.commit[:12]}, {start.words}"
    return Admission("admitted", f"Attempt {attempt.epoch} of {task.title!r} {where}.")
