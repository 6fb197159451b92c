"""``worker.pyz work``: one attempt, from the keys to the last receipt."""

from __future__ import annotations

import contextlib
import signal
import sys
import traceback
from typing import Any

from include.worker import child, loop, seal
from include.worker.conversation import Conversation, Timing
from include.worker.envelope import take_keys
from include.worker.errors import Cancelled, GitRefused, NoAnswer
from include.worker.git import BRANCH, Repository
from include.worker.heartbeat import Heart
from include.worker.loop import Complete, NotDone
from include.worker.paths import Paths
from include.worker.tools import Tools

Ending = tuple[str, dict[str, Any]]


def main(paths: Paths, timing: Timing | None = None) -> int:
    """Work on the one task that the broker assigns.

    Returns:
        0 when the ending was received by the broker, 1 when it was not.
    """
    child.protect()  # before the keys are read
    conversation = Conversation(take_keys(paths.key), paths, timing)
    signal.signal(signal.SIGTERM, lambda *_: conversation.cancel("the sandbox's time is over"))
    heartbeat = Heart(conversation)
    conversation.start()
    heartbeat.start()
    type_, payload = _attempt(paths, conversation, heartbeat)
    patience = conversation.timing.cancelled_ending if conversation.cancelled.is_set() else conversation.timing.ending
    try:
        conversation.end(type_, payload, patience)
    except NoAnswer as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    return 0


def _attempt(paths: Paths, conversation: Conversation, heartbeat: Heart) -> Ending:
    """Everything between the first and the last message; whatever happens becomes an ending."""
    try:
        repository = Repository(paths)
        repository.clone(BRANCH)
        heartbeat.milestone("ready", f"ready; tests are sealed by {seal.strength()}")
        task = conversation.assignment()
        heartbeat.set_interval(task.heartbeat_s)
        tools = Tools(paths, conversation, heartbeat, task.test_timeout_s)
        ended = loop.work(conversation, heartbeat, tools, task.first_turn)
        return _complete(repository, tools, ended) if isinstance(ended, Complete) else _failed(ended)
    except Cancelled as error:
        return _failed(NotDone("cancelled", str(error) or "cancelled"))
    except Exception as error:  # the last line: an attempt never ends without saying so
        traceback.print_exc()
        return _failed(NotDone("crashed", f"{type(error).__name__}: {error}"))


def _complete(repository: Repository, tools: Tools, ended: Complete) -> Ending:
    """Hand in what is committed; the summary names what is not."""
    commit = repository.hand_in()
    summary = ended.summary[:7000]
    with contextlib.suppress(GitRefused, OSError):  # a courtesy; the work is handed in already
        if lost := tools.uncommitted():
            summary += f"\n\n{len(lost)} written files were not committed and are not handed in: {', '.join(lost[:10])}"[:900]
    return "task.complete", {"summary": summary, "commit": commit}


def _failed(ended: NotDone) -> Ending:
    return "task.failed", {"kind": ended.kind, "reason": ended.reason[:8000]}
