"""What the house does not hold yet: each list must only shrink, and ``tests/test_house.py`` fails too when a name no longer belongs on it."""

from __future__ import annotations

EMPTY_ROOMS: set[str] = {
    "fleet",
}
MOST_SUBSCRIPTS = 1199
"""The aim is 200."""
MANY_PARAMETERS: set[str] = {
    "include.artifacts.service.store",
    "include.artifacts.service.store_verification",
    "include.broker.calls._end",
    "include.broker.money._end",
    "include.broker.money.give_up",
    "include.broker.questions.keep",
    "include.cli.chaos.chaos",
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
    "include.local.airflow._sections",
    "include.tasks.admission.entry",
}
LONG_FILES: set[str] = {
    "include.broker.__main__",
    "include.local.airflow",
    "include.local.supervisor",
    "include.sandbox.relay",
}
UNUSED: set[str] = {
    "include.artifacts.service.of_attempt",
    "include.database.rows.aevery",
    "include.database.rows.aone",
    "include.database.rows.ascalar",
    "include.database.rows.ascalars",
    "include.drills.chaos.rules.troubled",
    "include.goals.service.goal_of",
    "include.governance.service.record_async",
    "include.repository.mirror.has_uncommitted",
}
DOUBLED: set[str] = {
    "Answer",
    "Asked",
    "Conflict",
    "Entry",
    "Facts",
    "Failed",
    "Fault",
    "Frozen",
    "GitFailed",
    "Heartbeat",
    "LeaseTerms",
    "Left",
    "Link",
    "Opened",
    "Outcome",
    "Process",
    "Question",
    "Report",
    "Taken",
    "Turn",
    "Watch",
}
ALSO_WRITTEN: dict[str, set[str]] = {
    "agents": {"drills"},
    "artifacts": {"broker"},
    "attempt_keys": {"drills", "sandbox"},
    "attempts": {"broker", "drills"},
    "audit_log": {"broker", "local"},
    "decisions": {"broker"},
    "goal_runs": {"broker", "drills", "merge", "plans"},
    "goals": {"drills"},
    "leases": {"broker", "drills", "flow", "local", "sandbox"},
    "model_requests": {"broker", "plans"},
    "nodes": {"drills", "sandbox"},
    "notices": {"broker", "leases"},
    "plans": {"drills"},
    "processed_messages": {"drills"},
    "repositories": {"cli", "drills"},
    "reworks": {"flow"},
    "task_events": {"broker", "drills"},
    "task_runs": {"broker", "drills", "merge"},
}
"""Tables that other rooms than their own write, and those rooms. ``drills`` fills throwaway databases of its own."""
