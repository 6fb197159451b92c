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
    reasons = {found["id"]: found["reason"] for found in _POLICY.finditer(policies)}
    digest = hashlib.sha256(policies.encode() + b"\0" + schema.encode()).hexdigest()
    return PolicySet(cedarpy.PolicySet.from_str(policies), cedarpy.Schema.from_str(schema), digest, reasons)


@lru_cache(maxsize=8)
def load(name: str) -> PolicySet:
    """Read ``<name>.cedar`` and ``<name>.cedarschema`` of this folder, once per process."""
    folder = Path(__file__).parent
    return parse((folder / f"{name}.cedar").read_text(), (folder / f"{name}.cedarschema").read_text())


def decide(policy: PolicySet, principal: dict[str, Any], action: str, resource: dict[str, Any], context: dict[str, Any]) -> Decision:
    """Ask one question. An error while deciding is a forbid.

    Args:
        principal: an entity, ``{"uid": {"type", "id"}, "attrs", "parents"}``.
        action: its name.
        resource: an entity.
        context: facts of the moment.
    """
    request = {"principal": principal["uid"], "action": {"type": "Action", "id": action}, "resource": resource["uid"], "context": context}
    try:
        result = cedarpy.is_authorized(request, policy.policies, [principal, resource], schema=policy.schema)
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
