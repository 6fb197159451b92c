"""The worker's side of the conversation with its broker: numbers, replies, re-sends, cancel.

One thread reads the inbox, once, from its beginning, and hands each message to whoever waits for it. What needs an answer is
sent again, the same bytes, every ten seconds until the answer is here. If the streams were lost meanwhile, an ending would never
count, because numbers before it are missing; so re-sends of the ending bring along every message that was never answered.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from typing import Any, NamedTuple

from include.worker.envelope import Keys, Received, Sent, open_envelope, seal_envelope
from include.worker.errors import BadMessage, Cancelled, LinkRefused, NoAnswer
from include.worker.link import InboxEntry, RelayConnection, StreamId
from include.worker.paths import Paths


class Timing(NamedTuple):
    """How long to wait, in seconds."""

    resend: float = 10.0
    assignment: float = 600.0
    question: float = 120.0
    model: float = 660.0
    receipt: float = 30.0
    ending: float = 3600.0
    cancelled_ending: float = 10.0


class Assignment(NamedTuple):
    """What the worker must know of its task; the rest is for the model, and the broker tells it.

    Attributes:
        heartbeat_s: seconds between two heartbeats.
        test_timeout_s: seconds a test run may take.
        first_turn: where the conversation begins, or an older attempt's goes on.
    """

    heartbeat_s: float
    test_timeout_s: int
    first_turn: int


class Conversation:
    """Speaks for one attempt.

    Args:
        keys: the attempt's identity and keys.
        paths: where the relay's socket lies.
        timing: how long to wait.
    """

    def __init__(self, keys: Keys, paths: Paths, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.cancelled = threading.Event()
        self.cancel_reason = ""
        self.capabilities: frozenset[str] = frozenset()
        self._keys = keys
        self._outbox, self._inbox = RelayConnection(paths.socket), RelayConnection(paths.socket)
        self._sending = threading.Lock()
        self._seq = 0
        self._closed = False
        self._unanswered: dict[str, Sent] = {}
        self._waiting: dict[str, queue.SimpleQueue[Received | None]] = {}
        self._assignment: queue.SimpleQueue[Received | None] = queue.SimpleQueue()
        self._seen: set[int] = set()

    @property
    def closed(self) -> bool:
        """Say whether the ending was sent."""
        return self._closed

    def start(self) -> None:
        """Begin to read the inbox."""
        threading.Thread(target=self._read_inbox, name="inbox", daemon=True).start()

    def assignment(self) -> Assignment:
        """Wait for the task.

        Raises:
            NoAnswer: none came in time.
            Cancelled: it was called off before.
            BadMessage: it lacks what the worker must know.
        """
        try:
            received = self._assignment.get(timeout=self.timing.assignment)
        except queue.Empty:
            raise NoAnswer(f"no task came within {self.timing.assignment:g} s") from None
        if received is None:
            raise Cancelled(self.cancel_reason)
        return _assignment(received.payload)

    def tell(self, type_: str, payload: dict[str, Any]) -> None:
        """Send what needs no answer. After the ending was sent, nothing follows: the call does nothing."""
        self._send(type_, payload)

    def ask(self, type_: str, payload: dict[str, Any], timeout_s: float) -> Received:
        """Send, and wait for the reply; sent again every ``timing.resend`` seconds.

        Raises:
            NoAnswer: none came within ``timeout_s``.
            Cancelled: the attempt was cancelled while waiting.
        """
        if self.cancelled.is_set():
            raise Cancelled(self.cancel_reason)
        return self._await(type_, payload, timeout_s, ending=False)

    def end(self, type_: str, payload: dict[str, Any], timeout_s: float) -> None:
        """Send the last message and wait for its receipt; also when cancelled.

        Raises:
            NoAnswer: no receipt came within ``timeout_s``.
        """
        self._await(type_, payload, timeout_s, ending=True)

    def cancel(self, reason: str) -> None:
        """Stop what waits. Safe in a signal handler: it takes no lock."""
        self.cancel_reason = self.cancel_reason or reason
        self.cancelled.set()
        for waiting in [self._assignment, *self._waiting.values()]:
            waiting.put(None)

    def _await(self, type_: str, payload: dict[str, Any], timeout_s: float, *, ending: bool) -> Received:
        replies: queue.SimpleQueue[Received | None] = queue.SimpleQueue()
        sent = self._send(type_, payload, replies, ending=ending)
        if sent is None:
            raise NoAnswer("nothing may be sent after the ending")
        if self.cancelled.is_set():
            replies.put(None)  # it may have come before there was anybody to tell
        until, tries = time.monotonic() + timeout_s, 0
        try:
            while (left := until - time.monotonic()) > 0:
                try:
                    reply = replies.get(timeout=min(left, self.timing.resend))
                except queue.Empty:
                    tries += 1
                    self._send_again(sent, everything=ending and tries & (tries - 1) == 0)
                    continue
                if reply is not None:
                    return reply
                if not ending:
                    raise Cancelled(self.cancel_reason)
        finally:
            self._waiting.pop(sent.id, None)
        raise NoAnswer(f"no answer to {type_} within {timeout_s:g} s")

    def _send(
        self, type_: str, payload: dict[str, Any], replies: queue.SimpleQueue[Received | None] | None = None, *, ending: bool = False
    ) -> Sent | None:
        with self._sending:  # numbers go out in their order
            if self._closed:
                return None
            sent = seal_envelope(self._keys, self._seq + 1, type_, payload)
            self._seq += 1
            self._closed = ending
            self._unanswered[sent.id] = sent
            if replies is not None:
                self._waiting[sent.id] = replies
            self._outbox.put(sent.signature, sent.body)
            return sent

    def _send_again(self, sent: Sent, *, everything: bool) -> None:
        with self._sending:
            for each in list(self._unanswered.values()) if everything else [sent]:
                self._outbox.put(each.signature, each.body)

    def _read_inbox(self) -> None:
        after = StreamId()
        while True:
            try:
                entries = self._inbox.get(after)
            except LinkRefused as error:
                _note(str(error))
                time.sleep(5)
                continue
            for entry in entries:
                after = entry.id
                self._take(entry)

    def _take(self, entry: InboxEntry) -> None:
        try:
            received = open_envelope(self._keys, entry.body, entry.signature)
        except BadMessage as error:
            _note(f"a message of the inbox was refused: {error}")
            return
        if received.seq not in self._seen:
            self._seen.add(received.seq)
            self._handle(received)

    def _handle(self, received: Received) -> None:
        if received.type == "task.cancel":
            self.cancel(str(received.payload.get("reason", "")))
        elif received.type == "task.assign":
            self._set_capabilities(received)
            self._assignment.put(received)
        elif received.type == "capability.lease":
            self._set_capabilities(received)
        elif received.reply_to is not None:
            self._unanswered.pop(received.reply_to, None)
            if waiting := self._waiting.get(received.reply_to):
                waiting.put(received)

    def _set_capabilities(self, received: Received) -> None:
        granted = received.payload.get("capabilities")
        self.capabilities = frozenset(map(str, granted)) if isinstance(granted, list) else frozenset()


def _assignment(payload: dict[str, Any]) -> Assignment:
    match payload:
        case {"heartbeatS": float() | int() as heartbeat_s, "testTimeoutS": int(test_timeout_s), "firstTurn": int(first_turn)}:
            return Assignment(float(heartbeat_s), test_timeout_s, first_turn)
    raise BadMessage("the task does not say heartbeatS, testTimeoutS and firstTurn")


def _note(text: str) -> None:
    print(f"worker: {text}", file=sys.stderr, flush=True)
