"""What the house does not hold yet: each list must only shrink, and ``tests/test_house.py`` fails too when a name no longer belongs on it."""

from __future__ import annotations

EMPTY_ROOMS: set[str] = {
    "fleet",
}
MOST_SUBSCRIPTS = 1079
"""The aim is 200."""
MANY_PARAMETERS: set[str] = {
    "include.artifacts.service.store",
    "include.artifacts.service.store_verification",
    "include.broker.calls._end",
    "include.broker.money._end",
    "include.broker.money.give_up",
    "include.broker.questions.keep",
    "include.cli.goal.submit",
    "include.gate.rules.facts_for",
    "include.gate.verifier.request_verdict",
    "include.leases.service.grant_verify",
    "include.leases.service.grant_work",
    "include.messages.envelopes.make_body",
    "include.messages.envelopes.open_envelope",
    "include.plans.rules.check",
    "include.repository.git.finish",
    "include.repository.git.run",
    "include.tasks.admission.entry",
    "include.tasks.service._record",
    "include.tasks.service.fail_attempt",
    "include.tasks.watching._give_up",
    "include.tasks.watching.look",
    "include.worker.child._run",
    "include.worker.child.run",
    "include.worker.child.run_all",
}
LONG_FUNCTIONS: set[str] = {
    "include.broker.questions.call",
    "include.gate.rules.facts_for",
    "include.tasks.admission.entry",
}
LONG_FILES: set[str] = {
    "include.broker.__main__",
    "include.sandbox.relay",
}
UNUSED: set[str] = {
    "include.artifacts.service.of_attempt",
    "include.database.rows.aevery",
    "include.database.rows.aone",
    "include.database.rows.ascalar",
    "include.database.rows.ascalars",
    "include.goals.service.goal_of",
    "include.governance.service.record_async",
    "include.repository.mirror.has_uncommitted",
}
DOUBLED: set[str] = {
    "Answer",
    "Conflict",
    "Entry",
    "Failed",
    "Frozen",
    "GitFailed",
    "Heartbeat",
    "LeaseTerms",
    "Left",
    "Link",
    "Opened",
    "Process",
    "Question",
    "Taken",
}
ALSO_WRITTEN: dict[str, set[str]] = {
    "artifacts": {"broker"},
    "attempt_keys": {"sandbox"},
    "attempts": {"broker"},
    "audit_log": {"broker", "local"},
    "decisions": {"broker"},
    "goal_runs": {"broker", "merge", "plans"},
    "leases": {"broker", "flow", "local", "sandbox"},
    "model_requests": {"broker", "plans"},
    "nodes": {"sandbox"},
    "notices": {"broker", "leases"},
    "repositories": {"cli"},
    "reworks": {"flow"},
    "task_events": {"broker"},
    "task_runs": {"broker", "merge"},
}
"""Tables that other rooms than their own write, and those rooms."""
