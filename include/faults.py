"""Named points at which a process dies when a test or `./airlock chaos` asks for it. Without ``AIRLOCK_FAULTS`` each is a no-op.

A point is armed by a file of its name in the folder that ``AIRLOCK_FAULTS`` names. Whichever process of ours comes by first takes the
file away and kills itself with SIGKILL, so an armed point kills exactly once.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_named = os.environ.get("AIRLOCK_FAULTS")
FOLDER = Path(_named) if _named else None


def point(name: str) -> None:
    """Die here if this point is armed.

    Args:
        name: a key of ``POINTS``.
    """
    if FOLDER is None:
        return
    try:
        (FOLDER / name).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


POINTS: dict[str, str] = {
    "intake.store.before-commit": "a goal and its first run are written, not committed",
    "intake.store.after-commit": "a goal and its first run are committed; its base is not tested",
    "plan.store.before-commit": "the plan is written, not committed",
    "audit.append.before": "what is told of is written; the audit log does not tell of it",
    "audit.append.after": "the audit log tells of it; nothing is committed",
    "launch.trigger.before": "the plan is stored; the goal's DAG run is not there",
    "launch.trigger.after": "the goal's DAG run is there; submit_goal does not know it",
    "admit.grant.before-commit": "epoch, attempt and lease are written, not committed",
    "admit.grant.after-commit": "the lease is granted; the step has not ended",
    "warden.start.before": "the sandbox stands; its program is not started",
    "warden.start.after": "the program runs; the lease does not say so",
    "warden.evidence.before-commit": "the sandbox has ended; its evidence is written, not committed",
    "warden.evidence.after-commit": "the evidence is stored; the sandbox is not removed",
    "warden.end.before-commit": "the sandbox is removed; its lease is not ended",
    "relay.append.before": "a worker's message is read; it is in no stream",
    "relay.append.after": "a worker's message is in its stream; the worker does not know it",
    "broker.take.before-commit": "messages are taken and acted on, not committed",
    "broker.take.after-commit": "messages are taken; they are not acknowledged",
    "broker.acknowledge.after": "messages are acknowledged; nobody was told that a model is asked",
    "broker.append.before": "messages wait in the outbox; they are in no stream",
    "broker.append.after": "messages are in their streams; the outbox does not say so",
    "broker.reserve.after-commit": "the worst case of a call is reserved; the call is not marked as sent",
    "broker.request.before": "a call is marked as sent; it has not left",
    "broker.request.after": "a call is answered; it is not settled",
    "broker.settle.before-commit": "a call is settled with its effect, not committed",
    "broker.settle.after-commit": "a call is settled; its answer waits in the outbox",
    "lease.handed-in.before-commit": "the hand-in is seen; the task run is not yet VERIFYING",
    "lease.handed-in.after-commit": "the task run is VERIFYING; the lease step has not ended",
    "gate.verdict.before-commit": "a verdict is found; it is not stored",
    "gate.verdict.after-commit": "a verdict is stored; the gatekeeper has said nothing",
    "merge.move.before": "the merge is written, not committed; the goal branch has not moved",
    "merge.move.after": "the goal branch has moved; the merge is not committed",
    "merge.merge.after-commit": "the merge is committed; the step has not ended",
    "door.clear.before": "a rework is decided and locked; nothing is cleared",
    "door.clear.after": "Airflow has cleared the steps; the rework does not say so",
    "landing.push.before": "the landing is tested; the base branch has not moved",
    "landing.push.after": "the base branch has moved; the landing is not recorded",
    "landing.land.after-commit": "the landing is recorded; the goal run is not COMPLETED",
}
"""Every point by its name, with what has and has not happened there."""
