"""Landing: the goal branch goes into the person's base branch as one merge commit whose exact tree was tested, by a push with a lease."""

from __future__ import annotations

from pathlib import Path

from include import faults, inert
from include.database import rows
from include.database.queries import load
from include.database.unit_of_work import Connection
from include.errors import Refused
from include.goals import service as goals
from include.merge.models import Landed, Landing, LandingConflict, LockedRun
from include.merge.service import lock_run
from include.repository import mirror, remotes, trees
from include.repository.models import Candidate, MergeConflict
from include.settings import Settings

_SQL = load(__file__)


def prepare_landing(connection: Connection, settings: Settings, goal_run: str) -> Landing:
    """Fetch the base branch and make the merge commit of it and the goal branch, in memory. The same state gives the same commit.

    Raises:
        LandingConflict: the two cannot be merged; the goal branch was pushed to the person's repository first.
        BadInput: the person's repository or base branch is gone.
    """
    run = lock_run(connection, goal_run)
    repository = mirror.path_of(settings, run.repository)
    base = mirror.fetch_base(settings, run.repository, run.path, run.base_branch)
    tip = trees.resolve(repository, f"refs/heads/{run.goal_branch}")
    before = trees.find(repository, _ref(goal_run))
    if before and trees.is_ancestor(repository, tip, before) and trees.is_ancestor(repository, before, base):
        pushed = Candidate(before, trees.tree_of(repository, before), (base,))  # perhaps by a process that died
        return Landing(pushed, base, needs_verification=False, nothing_to_do=True)
    message, trailers = _words(connection, run)
    candidate = trees.merge_in_memory(repository, base, tip, message, trailers, trees.committed_at(repository, tip))
    if isinstance(candidate, MergeConflict):
        note = _keep(repository, run, tip)
        words = f"{run.goal_branch} cannot be merged into {run.base_branch}: {candidate.words()}. {note}"
        raise LandingConflict(words, candidate.paths, run.goal_branch)
    trees.set_ref(repository, _ref(goal_run), candidate.commit)
    nothing = candidate.commit == base
    return Landing(candidate, base, not nothing and not _is_green(connection, goal_run, candidate.tree), nothing)


def land(connection: Connection, settings: Settings, goal_run: str, landing: Landing) -> Landed:
    """Bring the prepared merge into the person's repository, once, and remember where it is.

    Returns:
        ``landed``; ``already`` (a process that died did it, or there was nothing to do); ``kept`` (the base branch is checked out with
        uncommitted changes, or refuses the push: the result is on the goal branch there); ``moved`` (prepare again).

    Raises:
        Refused: no green verdict for exactly this tree.
        GitFailed: the person's repository takes no push at all.
    """
    run = lock_run(connection, goal_run)
    repository = mirror.path_of(settings, run.repository)
    commit = landing.candidate.commit
    if not landing.nothing_to_do and not _is_green(connection, goal_run, landing.candidate.tree):
        raise Refused(f"tree {landing.candidate.tree[:12]} has no green verdict in goal run {goal_run}; nothing was landed")
    remote = remotes.at(run.path)
    remote.mend(repository)
    now = mirror.fetch_base(settings, run.repository, run.path, run.base_branch)
    if trees.is_ancestor(repository, commit, now):
        return _record(connection, run, Landed("already", commit, run.landing_note))
    if now != landing.candidate.parents[0]:
        return Landed("moved", None, f"{run.base_branch} has moved to {now[:12]}")
    ref = f"refs/heads/{run.base_branch}"
    faults.point("landing.push.before")
    refusal = remote.push(repository, commit, ref, now)
    faults.point("landing.push.after")
    if refusal is None:
        return _record(connection, run, Landed("landed", commit, ""))
    if mirror.fetch_base(settings, run.repository, run.path, run.base_branch) != now:
        return Landed("moved", None, f"{run.base_branch} moved while it was pushed")
    note = f"{run.base_branch} was left as it is: {refusal}. {_keep(repository, run, commit)}"
    return _record(connection, run, Landed("kept", commit, note))


def keep_branch(connection: Connection, settings: Settings, goal_run: str) -> str:
    """Push the goal branch as it is to the person's repository, so that a person can go on; returns the words on where it is.

    Raises:
        GitFailed: the person's repository does not take it.
    """
    run = lock_run(connection, goal_run)
    repository = mirror.path_of(settings, run.repository)
    return _keep(repository, run, trees.resolve(repository, f"refs/heads/{run.goal_branch}"))


def _keep(repository: Path, run: LockedRun, commit: str) -> str:
    remotes.at(run.path).keep(repository, commit, f"refs/heads/{run.goal_branch}")
    return f"The work is on the branch {run.goal_branch} of {run.path} (`git merge {run.goal_branch}` brings it in)."


def _ref(goal_run: str) -> str:
    return f"refs/candidates/{goal_run}/landing"


def _words(connection: Connection, run: LockedRun) -> tuple[str, dict[str, str]]:
    keys = rows.scalars(connection, _SQL.merged_keys, goal_run=run.id)
    return inert.words(run.title), {"Goal-Run": run.id, "Tasks": ", ".join(keys)}


def _is_green(connection: Connection, goal_run: str, tree: str) -> bool:
    return bool(rows.scalar(connection, _SQL.green_for_run, goal_run=goal_run, tree=tree))


def _record(connection: Connection, run: LockedRun, landed: Landed) -> Landed:
    goals.set_landed(connection, run.id, landed.commit, landed.note)
    return landed
