"""From a hand-in to what would be merged: quarantine, merge in memory, the facts that the gate judges, and its verdict."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from include import inert
from include.database.unit_of_work import Connection
from include.errors import BundleRefused
from include.gate import verification, verifier
from include.gate.models import Allowed, Case, TestReport, Verdict
from include.goals.models import GoalRun, LockedGoalRun
from include.leases import service as leases
from include.leases.models import WorkLease
from include.merge.service import candidate_ref
from include.plans.models import Plan, Task
from include.repository import mirror, quarantine, trees
from include.repository.models import Candidate, MergeConflict
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import LIVE, AttemptRef, Failure, TaskRunState

LINE = 200
"""Characters of a finding that a line of a log holds: of many names the last go, what to do stays."""
_NOT_HANDED_IN = "a person marked or cleared its lease step in Airflow before anything was handed in"


class Opened(NamedTuple):
    """An attempt that handed in: all that its verification needs, read in one transaction."""

    run: LockedGoalRun
    task: Task
    attempt: AttemptRef
    lease: WorkLease
    summary: str


class Failed(NamedTuple):
    """Why the attempt cannot be merged, with words for a person and feedback for the next worker."""

    failure: Failure
    reason: str
    feedback: str


class NotVerifiable(NamedTuple):
    """The task run is not where a verification begins: done already (``fine``), still worked on under ``lease``, or ended."""

    fine: bool
    words: str
    lease: UUID | None = None


class Wanted(NamedTuple):
    """Which attempt a step wants to verify: of a task in a plan's JSON; with an epoch only that one, another is not its business."""

    document: str
    key: str
    epoch: int | None = None


def open_or_cancel(connection: Connection, settings: Settings, run: LockedGoalRun, wanted: Wanted) -> Opened | NotVerifiable:
    """Open the attempt that is to be verified, or cancel one whose lease step a person ended before anything was handed in.

    Our tables decide: whatever Airflow shows, only what is handed in is looked at.
    """
    row = tasks.lock(connection, run.id, wanted.key)
    if wanted.epoch is not None and row.epoch != wanted.epoch:
        return NotVerifiable(True, f"Attempt {row.epoch} has taken over from attempt {wanted.epoch}.")
    if row.state in (TaskRunState.COMPLETED, TaskRunState.MERGE_QUEUE):
        return NotVerifiable(True, f"Task {row.key} is {row.state}; its verdict stands.")
    lease = leases.work_lease(connection, settings, row.attempt)
    if row.state in LIVE:
        if lease is not None and lease.watched:
            return NotVerifiable(True, f"Attempt {row.epoch} still works; waiting for its lease step.", lease.id)
        tasks.cancel(connection, row, _NOT_HANDED_IN)
        return NotVerifiable(False, f"CANCELLED: {_NOT_HANDED_IN}. Clear the whole group to try again.")
    if row.state is not TaskRunState.VERIFYING:
        return NotVerifiable(False, f"{row.state}: {row.reason or 'nothing was handed in'}. Clear the whole group to try again.")
    assert lease is not None  # VERIFYING is reached only through a lease that ended
    task = next(task for task in Plan.model_validate_json(wanted.document).tasks if task.key == row.key)
    return Opened(run, task, row.attempt, lease, tasks.attempt_of(connection, row.attempt).summary)


def candidate(settings: Settings, opened: Opened) -> Candidate | Failed:
    """Take the hand-in through the quarantine and merge it onto the goal branch in memory. Done twice, it gives the same commit."""
    repository = mirror.path_of(settings, opened.run.repository)
    tip = opened.lease.input_commit
    if opened.lease.handin_sha256:
        try:
            handin = settings.handins_dir / str(opened.lease.id)
            tip = quarantine.accept(repository, handin, tip, *opened.attempt)
        except BundleRefused as error:
            return Failed(Failure.REFUSED_HANDIN, f"The quarantine refused the hand-in: {error}", f"Your commits were refused: {error}")
    target = trees.resolve(repository, f"refs/heads/{opened.run.goal_branch}")
    trailers = {"Task": opened.task.key, "Task-Run": opened.attempt.task_run, "Attempt": str(opened.attempt.epoch)}
    when = int(opened.lease.granted_at.timestamp())
    made = trees.merge_in_memory(repository, target, tip, f"{inert.words(opened.task.title)}\n\n{opened.summary}", trailers, when)
    if isinstance(made, MergeConflict):
        words = f"The work does not merge with what others merged meanwhile: {made.words()}."
        return Failed(Failure.CONFLICT, words, words + " Start from the files as they are now.")
    if met := quarantine.twin(repository, target, made.commit):
        words = f"The work does not merge with what others merged meanwhile: {met}"
        return Failed(Failure.CONFLICT, words, words)
    trees.set_ref(repository, candidate_ref(opened.attempt), made.commit)
    return made


def still(settings: Settings, opened: Opened, found: Candidate) -> bool:
    """Say whether the goal branch is where it was when this candidate was made: made again, it would be the same."""
    repository = mirror.path_of(settings, opened.run.repository)
    return trees.resolve(repository, f"refs/heads/{opened.run.goal_branch}") == found.parents[0]


def held(connection: Connection, settings: Settings, opened: Opened) -> Candidate | None:
    """Find the candidate that the gate is judging, or found red: it stands, although the target may have moved meanwhile."""
    repository = mirror.path_of(settings, opened.run.repository)
    commit = trees.find(repository, candidate_ref(opened.attempt))
    if commit is None:
        return None
    found = Candidate(commit, trees.tree_of(repository, commit), (trees.first_parent(repository, commit) or commit,))
    given = verifier.verdict(connection, case_of(opened, found))
    return found if given is not None and not given.green else None


def case_of(opened: Opened, found: Candidate) -> Case:
    """Make the gate's case of an attempt's candidate."""
    bounds = Allowed(opened.task.kind, opened.task.touches, opened.lease.spent_micro, opened.lease.max_micro)
    return Case(opened.run.id, *opened.attempt, found.tree, bounds)


def landing_case(run: GoalRun, found: Candidate) -> Case:
    """Make the gate's case of a landing: only the tests count, what was touched was judged task by task."""
    return Case(run.id, None, None, found.tree, Allowed("landing"))


def request_verdict(connection: Connection, settings: Settings, opened: Opened, found: Candidate, report: TestReport) -> Verdict:
    """Ask for the verdict on an attempt's candidate, and remember its commits as the last accepted ones."""
    asked = verification.request(connection, settings, opened.run, case_of(opened, found), found, report)
    task_run, epoch = opened.attempt
    if accepted := trees.find(mirror.path_of(settings, opened.run.repository), f"refs/tasks/{task_run}/{epoch}"):
        tasks.accept(connection, task_run, accepted)
    return asked


def red(given: Verdict) -> Failed:
    """Tell a red verdict as a failure: the reason is short, the feedback every finding whole, a line each."""
    findings = [inert.words(finding.message) for finding in given.findings if finding.severity != "warning"]
    findings = findings or ["the gate gave no reason"]
    said = [inert.short(finding, LINE // 2) for finding in findings[:3]]
    said += [f"And {len(findings) - 3} more."] if findings[3:] else []
    return Failed(Failure.RED, f"The gate is red: {' '.join(said)}", "The gate refused your work:\n- " + "\n- ".join(findings))


def told(given: Verdict) -> list[str]:
    """Tell a verdict's findings, a line of the log each: the expectation, what was seen, and what to do."""
    return [f"{finding.expectation}: {inert.short(finding.message, LINE)}" for finding in given.findings]
