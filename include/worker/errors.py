"""What can end or interrupt a worker. The island has a tree of its own: it imports nothing of ours.

WorkerError
├── BadMessage      bytes that are no message for us (signature, form, task, epoch, type)
├── NoAnswer        the broker did not answer a message in time
├── Cancelled       the broker, or the end of the sandbox's time, said stop
├── LinkRefused     the relay will not take our messages
├── NotSealed       a child could not be sealed; it was not run
├── ToolRefused     a tool call that cannot be done; the message says the remedy and goes to the model
└── GitRefused      git ended with an error
"""

from __future__ import annotations


class WorkerError(Exception):
    """Base of every error that the worker raises on purpose."""


class BadMessage(WorkerError):
    """Bytes that are no message for us."""


class NoAnswer(WorkerError):
    """The broker did not answer a message in time."""


class Cancelled(WorkerError):
    """The broker, or the end of the sandbox's time, said stop."""


class LinkRefused(WorkerError):
    """The relay will not take our messages (a size or total limit)."""


class NotSealed(WorkerError):
    """A child could not be sealed; it was not run."""


class ToolRefused(WorkerError):
    """A tool call that cannot be done; the message says the remedy."""


class GitRefused(WorkerError):
    """git ended with an error."""
