"""Ask the gatekeeper about a tree, for a task and for a landing alike: facts of its test run, artifacts, the request."""

from __future__ import annotations

from include.artifacts import service as artifacts
from include.artifacts.models import About
from include.database.unit_of_work import Connection
from include.gate import base, rules, verifier
from include.gate.models import Case, TestReport, Verdict
from include.goals.models import GoalRun
from include.repository import mirror, trees
from include.repository.models import Candidate
from include.settings import Settings


def request(connection: Connection, settings: Settings, run: GoalRun, case: Case, found: Candidate, report: TestReport) -> Verdict:
    """Store what the verification of a candidate found, and ask the gatekeeper for its verdict.

    Args:
        run: the goal run that the candidate is of.
        case: what is asked; its tree is the candidate's.
        found: what would be merged.
        report: of the test run on exactly that tree.
    """
    known = base.result(connection, run.repository, run.started_from)
    changes = trees.diff(mirror.path_of(settings, run.repository), found.parents[0], found.commit)
    facts = rules.facts_for(report, known.tests if known else {}, changes, case.bounds)
    artifacts.store_verification(connection, About(case.goal_run, case.task_run, case.epoch), case.tree, changes, report)
    return verifier.request_verdict(connection, case, facts)
