"""Make the form of ``submit_goal`` from the model of a goal request: what the form asks for, bounds and says, the model says."""

from __future__ import annotations

from typing import Any

from include.goals.models import GoalRequest

# Fields without a section stand in the one that the form opens with.
_BOUNDS, _MORE = "Budget, deadline and landing", "For bots and planners"
_SHOWN: dict[str, dict[str, Any]] = {
    "goal": {"format": "multiline"},
    "budget_usd": {"section": _BOUNDS},
    "deadline": {"section": _BOUNDS},
    "landing": {
        "section": _BOUNDS,
        "description": "What reaches the base branch, and when.",
        "values_display": {"per_goal": "The finished goal, as one merge", "per_task": "Each task, as soon as it is done"},
    },
    "key": {
        "section": _MORE,
        "description": "The same key with the same form is the same goal; with another form it is refused. Empty: a new goal.",
    },
    "plan": {
        "section": _MORE,
        "description": "A plan made by hand (JSON, docs/plan.schema.json). Leave it as it is, and the agent's model plans.",
    },
}
"""How the form shows a field, where the model does not say it; with the words for those that a form may leave empty."""
_WAIT = {
    "default": False,
    "type": "boolean",
    "title": "Wait for the end",
    "section": _MORE,
    "description": "This run ends when the goal ends, and is red unless the goal landed.",
}
"""The form's own field: it is about the submission's run, not about the goal."""


def fields() -> dict[str, dict[str, Any]]:
    """Make the arguments of each of the form's parameters, in the form's order: a JSON schema with its default, if it has one."""
    known = GoalRequest.model_json_schema()["properties"]
    shown = {name: _field(name, known[name]) for name in GoalRequest.model_fields}
    asked = {name: field for name, field in shown.items() if name not in ("key", "plan")}
    return {**asked, "wait": dict(_WAIT), "key": shown["key"], "plan": shown["plan"]}


def _field(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    schema = schema | _SHOWN.get(name, {})
    if name == "plan":  # its own schema is the plan check's: a form takes any object, and the first step says what is wrong with it
        return {"default": None, "type": ["null", "object"], **{word: schema[word] for word in ("title", "section", "description")}}
    if name == "key":  # without one the run's own id is the key
        schema.pop("minLength")
        return {"default": None, **schema, "type": ["null", "string"]}
    return schema
