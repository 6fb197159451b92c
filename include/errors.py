"""Every error of Airlock, in one tree. Messages say what happened, to what, and what to do next.

AirlockError
├── BadInput                 what a person or a program gave us cannot be used; names the field and the remedy
│   ├── BadPlan              a plan breaks a rule of the plan check (carries every finding)
│   └── Conflict             the same idempotency key with another body
├── NotFound                 a goal, run, repository or agent that does not exist
├── Refused                  the lock said no
│   ├── Forbidden            policy forbids it
│   ├── StaleEpoch           an older epoch than the task run's current one
│   ├── IllegalTransition    a state change that the transitions table does not hold
│   ├── EnvelopeRefused      signature, size, clock, sequence or type of a message is wrong
│   ├── BundleRefused        the quarantine refused a worker's bundle
│   └── BudgetExceeded       the worst case of a model call does not fit what is left
├── ModelFailed              the model's endpoint did not give a usable answer
│   └── ModelUnavailable     and trying again later may help (down, rate limited, overloaded)
├── SandboxFailed            the engine could not make, start or read a sandbox (infrastructure, not the work's fault)
├── GitFailed                a trusted git call failed
└── Unavailable              a server that Airlock needs does not answer (also a ConnectionError)
"""

from __future__ import annotations


class AirlockError(Exception):
    """Base of every error that Airlock raises on purpose."""


class BadInput(AirlockError, ValueError):
    """A value that cannot be used.

    Args:
        field: the name of the field as the person knows it, for example ``repository``.
        problem: what is wrong with it.
        remedy: what to do next.
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}. {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class BadPlan(BadInput):
    """A plan that breaks the plan check; ``findings`` holds one sentence a broken rule."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("plan", "; ".join(findings), "Mend the plan and submit it again.")
        self.findings = findings


class Conflict(BadInput):
    """The same idempotency key was used before with another body."""


class NotFound(AirlockError, LookupError):
    """Something that was named does not exist."""


class Refused(AirlockError):
    """The lock said no; nothing was changed."""


class Forbidden(Refused):
    """Policy forbids it. Carries the rule that decided."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(f"forbidden by {rule}: {reason}")
        self.rule = rule
        self.reason = reason


class StaleEpoch(Refused):
    """An older epoch than the task run's current one."""


class IllegalTransition(Refused):
    """A state change that the transitions table does not hold."""


class EnvelopeRefused(Refused):
    """A message that is not what its signature, size, clock, sequence or role allows."""


class BundleRefused(Refused):
    """The quarantine refused a worker's bundle; nothing of it was kept."""


class BudgetExceeded(Refused):
    """The worst case of a model call does not fit what is left. ``limit`` names which limit."""

    def __init__(self, limit: str, message: str) -> None:
        super().__init__(message)
        self.limit = limit


class ModelFailed(AirlockError):
    """The model's endpoint did not give a usable answer. ``kind`` is a short machine word."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ModelUnavailable(ModelFailed):
    """As ModelFailed, and trying again later may help."""


class SandboxFailed(AirlockError):
    """The engine could not make, start or read a sandbox."""


class GitFailed(AirlockError):
    """A trusted git call failed."""


class Unavailable(AirlockError, ConnectionError):
    """A server that Airlock needs does not answer."""
