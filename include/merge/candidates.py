"""From a hand-in to what would be merged: quarantine, merge in memory, the facts that the gate judges, and its verdict."""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from include.artifacts import service as artifacts
from include.database.unit_of_work import Connection
from include.errors import BundleRefused
from include.gate import base, rules, verifier
from include.gate.models import TestReport
from include.gate.verifier import Verdict
from include.leases import service as leases
from include.plans.models import Plan, Task
from include.repository import mirror, quarantine, trees
from include.repository.models import Candidate, MergeConflict
from include.settings import Settings
from include.tasks import service as tasks
from include.tasks.models import LIVE, Failure, TaskRunState

_NOT_HANDED_IN = "a person marked or cleared its lease step in Airflow before anything was handed in"


class Opened(NamedTuple):
    """An attempt that handed in: all that its verification needs, read in one transaction."""

    run: dict[str, Any]
    task: Task
    task_run: str
    epoch: int
    lease: dict[str, Any]
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


def open_attempt(
    connection: Connection, settings: Settings, run: dict[str, Any], document: str, key: str, epoch: int | None = None
) -> Opened | NotVerifiable:
    """The attempt to verify. Our tables decide: whatever Airflow shows, only what is handed in is looked at.

    Args:
        run: the goal run, locked.
        document: JSON of its plan.
        key: of the task.
        epoch: of the attempt that the asking step has begun to verify; another one is not its business.
    """
    row = tasks.lock(connection, run["id"], key)
    if epoch is not None and row["epoch"] != epoch:
        return NotVerifiable(True, f"Attempt {row['epoch']} has taken over from attempt {epoch}.")
    state = TaskRunState(row["state"])
    if state in (TaskRunState.COMPLETED, TaskRunState.MERGE_QUEUE):
        return NotVerifiable(True, f"Task {key} is {state}; its verdict stands.")
    lease = leases.work_lease(connection, settings, row["id"], row["epoch"])
    if state in LIVE:
        if lease is not None and lease["watched"]:
            return NotVerifiable(True, f"Attempt {row['epoch']} still works; waiting for its lease step.", lease["id"])
        tasks.cancel(connection, row["id"], row["epoch"], _NOT_HANDED_IN)
        return NotVerifiable(False, f"CANCELLED: {_NOT_HANDED_IN}. Clear the whole group to try again.")
    if state is not TaskRunState.VERIFYING:
        return NotVerifiable(False, f"{state}: {row['reason'] or 'nothing was handed in'}. Clear the whole group to try again.")
    assert lease is not None  # VERIFYING is reached only through a lease that ended
    task = next(task for task in Plan.model_validate_json(document).tasks if task.key == key)
    attempt = tasks.attempt(connection, row["id"], row["epoch"])
    return Opened(run, task, row["id"], row["epoch"], lease, attempt["summary"])


def candidate(settings: Settings, opened: Opened) -> Candidate | Failed:
    """Take the hand-in through the quarantine and merge it onto the goal branch in memory. Done twice, it gives the same commit."""
    repository = mirror.path_of(settings, opened.run["repository"])
    tip = opened.lease["input_commit"]
    if opened.lease["handin_sha256"]:
        try:
            handin = settings.handins_dir / str(opened.lease["id"])
            tip = quarantine.accept(repository, handin, tip, opened.task_run, opened.epoch)
        except BundleRefused as error:
            return Failed(Failure.REFUSED_HANDIN, f"The quarantine refused the hand-in: {error}", f"Your commits were refused: {error}")
    target = trees.resolve(repository, f"refs/heads/{opened.run['goal_branch']}")
    trailers = {"Task": opened.task.key, "Task-Run": opened.task_run, "Attempt": str(opened.epoch)}
    when = int(opened.lease["granted_at"].timestamp())
    made = trees.merge_in_memory(repository, target, tip, f"{opened.task.title}\n\n{opened.summary}", trailers, when)
    if isinstance(made, MergeConflict):
        words = f"The work does not merge with what others merged meanwhile: {made.words()}."
        return Failed(Failure.CONFLICT, words, words + " Start from the files as they are now.")
    trees.set_ref(repository, f"refs/candidates/{opened.task_run}/{opened.epoch}", made.commit)
    return made


def still(settings: Settings, opened: Opened, found: Candidate) -> bool:
    """True while the goal branch is where it was when this candidate was made: made again, it would be the same."""
    repository = mirror.path_of(settings, opened.run["repository"])
    return trees.resolve(repository, f"refs/heads/{opened.run['goal_branch']}") == found.parents[0]


def held(connection: Connection, settings: Settings, opened: Opened) -> Candidate | None:
    """The candidate that the gate is judging, or found red: it stands, although the target may have moved meanwhile."""
    repository = mirror.path_of(settings, opened.run["repository"])
    commit = trees.find(repository, f"refs/candidates/{opened.task_run}/{opened.epoch}")
    if commit is None:
        return None
    found = Candidate(commit, trees.tree_of(repository, commit), (trees.first_parent(repository, commit) or commit,))
    given = verdict(connection, opened, found)
    return found if given is not None and not given.green else None


def verdict(connection: Connection, opened: Opened, found: Candidate) -> Verdict | None:
    """The verdict on exactly this tree of this attempt, or None if it was never asked for."""
    return verifier.verdict(connection, opened.run["id"], opened.task_run, opened.epoch, found.tree, opened.task.kind)


def request_verdict(connection: Connection, settings: Settings, opened: Opened, found: Candidate, report: TestReport) -> Verdict:
    """Store the artifacts of a verification and ask the gatekeeper."""
    repository = mirror.path_of(settings, opened.run["repository"])
    known = base.result(connection, opened.run["repository"], opened.run["base_commit"])
    changes = trees.diff(repository, found.parents[0], found.commit)
    facts = rules.facts_for(
        kind=opened.task.kind,
        report=report,
        base_tests=known.tests if known else {},
        changes=changes,
        touches=opened.task.touches,
        cost_micro=opened.lease["spent_micro"],
        max_cost_micro=opened.lease["max_micro"],
    )
    artifacts.store_verification(connection, opened.run["id"], opened.task_run, opened.epoch, found.tree, changes, report)
    verifier.request_verdict(connection, opened.run["id"], opened.task_run, opened.epoch, found.tree, opened.task.kind, facts)
    if accepted := trees.find(repository, f"refs/tasks/{opened.task_run}/{opened.epoch}"):
        tasks.accept(connection, opened.task_run, accepted)
    asked = verdict(connection, opened, found)
    assert asked is not None
    return asked


def landing_verdict(connection: Connection, run: dict[str, Any], found: Candidate) -> Verdict | None:
    """The verdict on the tree of a landing that no task's verdict covers, or None if it was never asked for."""
    return verifier.verdict(connection, run["id"], None, None, found.tree, "landing")


def request_landing_verdict(
    connection: Connection, settings: Settings, run: dict[str, Any], found: Candidate, report: TestReport
) -> Verdict:
    """As ``request_verdict``, for a landing: only the tests count, what was touched was judged task by task."""
    repository = mirror.path_of(settings, run["repository"])
    known = base.result(connection, run["repository"], run["base_commit"])
    changes = trees.diff(repository, found.parents[0], found.commit)
    facts = rules.facts_for(
        kind="landing",
        report=report,
        base_tests=known.tests if known else {},
        changes=changes,
        touches=("**",),
        cost_micro=0,
        max_cost_micro=0,
    )
    artifacts.store_verification(connection, run["id"], None, None, found.tree, changes, report)
    verifier.request_verdict(connection, run["id"], None, None, found.tree, "landing", facts)
    asked = landing_verdict(connection, run, found)
    assert asked is not None
    return asked


def red(given: Verdict) -> Failed:
    """A red verdict as a failure: every finding, in words."""
    findings = [finding.message for finding in given.findings if finding.severity == "critical"] or ["the gate gave no reason"]
    return Failed(Failure.RED, "The gate is red: " + " ".join(findings), "The gate refused your work:\n- " + "\n- ".join(findings))
