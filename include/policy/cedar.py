"""The Cedar engine. Three guards against a forbid that fails open: policies are validated at load, every request is checked against
the schema, and any error in the diagnostics is a forbid."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import cedarpy

from include.errors import Forbidden
from include.policy.models import Decision

_POLICY = re.compile(r'@id\("(?P<id>[^"]+)"\)\s*@reason\("(?P<reason>[^"]+)"\)')


class PolicySet(NamedTuple):
    """A validated policy text with its schema, hash, and the reason of each rule id."""

    policies: Any
    schema: Any
    sha256: str
    reasons: dict[str, str]


def parse(policies: str, schema: str) -> PolicySet:
    """Parse and validate policies.

    Raises:
        Forbidden: they do not fit the schema; nothing may be decided with them.
    """
    checked = cedarpy.validate_policies(policies, schema)
    if not checked.validation_passed:
        raise Forbidden("policy-check", "; ".join(str(error) for error in checked.errors))
    reasons: dict[str, str] = dict(_POLICY.findall(policies))
    digest = hashlib.sha256(policies.encode() + b"\0" + schema.encode()).hexdigest()
    return PolicySet(cedarpy.PolicySet.from_str(policies), cedarpy.Schema.from_str(schema), digest, reasons)


@lru_cache(maxsize=8)
def load(name: str) -> PolicySet:
    """Read ``<name>.cedar`` and ``<name>.cedarschema`` of this folder, once per process."""
    folder = Path(__file__).parent
    return parse((folder / f"{name}.cedar").read_text(), (folder / f"{name}.cedarschema").read_text())


class Entity(NamedTuple):
    """Somebody or something that policies speak of."""

    type: str
    id: str
    attributes: dict[str, Any]

    @property
    def uid(self) -> dict[str, str]:
        """Its name, as Cedar has it."""
        return {"type": self.type, "id": self.id}

    @property
    def whole(self) -> dict[str, Any]:
        """All of it, as Cedar has it."""
        return {"uid": self.uid, "attrs": self.attributes, "parents": []}


def decide(policy: PolicySet, principal: Entity, action: str, resource: Entity, context: dict[str, Any]) -> Decision:
    """Ask one question. An error while deciding is a forbid.

    Args:
        principal: who asks.
        action: its name.
        resource: for what.
        context: facts of the moment.
    """
    request = {"principal": principal.uid, "action": {"type": "Action", "id": action}, "resource": resource.uid, "context": context}
    try:
        result = cedarpy.is_authorized(request, policy.policies, [principal.whole, resource.whole], schema=policy.schema)
        errors = list(result.diagnostics.errors)
        rules = tuple(sorted(result.diagnostics.id_annotations_by_reason.values()))
        allowed = bool(result.allowed)
    except Exception as error:  # whatever the engine raises: undecided is a forbid
        errors, rules, allowed = [str(error)], (), False
    if errors:
        return Decision(
            decision="forbid", decided_by="policy-error", rules=rules, reason="; ".join(errors)[:2000], policy_sha256=policy.sha256
        )
    reason = "; ".join(policy.reasons.get(rule, rule) for rule in rules) or "no rule permits it"
    return Decision(
        decision="permit" if allowed else "forbid", decided_by="policy", rules=rules, reason=reason, policy_sha256=policy.sha256
    )
