"""Envelopes between broker and worker: every type of message, its direction, and its payload.

Direction ``out`` is worker to broker, ``in`` is broker to worker; each side's union holds only the types of its role. Names on
the wire are camelCase, as in the message specification that this follows (seed 5).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter
from pydantic.alias_generators import to_camel

from include.frozen import Frozen

MAX_BODY_BYTES = 256 * 1024
Strict = Annotated[int, Field(strict=True)]
"""A whole number: not "1", 1.0 or true."""


class Wire(Frozen):
    """What goes over the wire, in camelCase there."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


# -- payloads, worker to broker -----------------------------------------------------------------------------------------------


class Progress(Wire):
    """A milestone a person may want to see."""

    status: Literal["ready", "working", "blocked"]
    step: str = Field(max_length=500)


class Heartbeat(Wire):
    """I am alive. Carries no usage: the broker counts."""

    status: Literal["ready", "working", "blocked"]
    step: str = Field(max_length=500)


class LlmRequest(Wire):
    """The next model turn. Only what is new: results of the tools that the last response asked for (empty at turn 1)."""

    turn: Strict = Field(ge=1)
    results: list[dict[str, Any]] = Field(description="Messages API tool_result blocks.")


class Question(Wire):
    """A decision beyond the worker's scope; the agent's model answers."""

    question: str = Field(max_length=4000)
    options: list[str] = Field(max_length=20)
    context: str = Field(max_length=8000)
    urgency: Literal["blocking", "normal"]


class PermissionRequest(Wire):
    """Asks for the use of a capability, with its exact arguments."""

    capability: str = Field(max_length=64)
    detail: dict[str, Any]
    reason: str = Field(max_length=2000)


class ArtifactMessage(Wire):
    """A typed result as the worker saw it: a hint, never a verdict."""

    artifact_type: Literal["file_diff", "test_result", "build_result", "log", "cost_report"]
    data: dict[str, Any]


class TaskComplete(Wire):
    """The hand-in is written; nothing follows."""

    summary: str = Field(max_length=8000)
    commit: str | None = Field(pattern=r"^[0-9a-f]{40}$", description="Tip of the handed-in branch; null: nothing was changed.")


class TaskFailed(Wire):
    """The worker gives up; nothing follows."""

    kind: Literal["gave_up", "model", "away", "budget", "cancelled", "crashed"]
    reason: str = Field(max_length=8000)


# -- payloads, broker to worker -----------------------------------------------------------------------------------------------


class GivenTerms(Wire):
    """What the worker may use."""

    lease_id: UUID
    expires_at: AwareDatetime
    max_tokens: int
    max_duration_minutes: int


class TaskAssign(Wire):
    """Here is your task. The prompt stays with the broker, who owns the transcript."""

    title: str
    capabilities: list[str]
    lease: GivenTerms
    heartbeat_s: int
    test_timeout_s: int
    first_turn: int = Field(default=1, ge=1, description="The turn to ask for first, with no results: more than 1 for a resumed attempt.")


class TaskCancel(Wire):
    """Stop: leave the repository consistent, say task.failed, end."""

    reason: str


class LlmError(Wire):
    """Why there is no response. ``unknown``: nobody knows if the model answered; ``lost``: the broker died over it. Both: ask again."""

    kind: Literal["budget", "model", "away", "unknown", "lost"]
    message: str


class LlmResponse(Wire):
    """The model's turn, or why there is none."""

    stop_reason: str | None
    content: list[dict[str, Any]]
    error: LlmError | None = None


class Answer(Wire):
    """Answer to a question."""

    answer: str
    decided_by: str


class PermissionGrant(Wire):
    """You may, with exactly the arguments you asked for."""

    capability: str
    approved_by: str
    note: str


class PermissionDeny(Wire):
    """You may not."""

    capability: str
    decided_by: str
    reason: str


class CapabilityLease(Wire):
    """The lease's capabilities, as they are now."""

    capabilities: list[str]
    lease: GivenTerms


class Receipt(Wire):
    """The database has the message that this replies to; it need not be sent again."""


# -- envelopes ------------------------------------------------------------------------------------------------------------------


class Envelope(Wire):
    """What every message carries. ``v`` is 1; ``seq`` rises by one per direction and attempt, from 1."""

    v: Strict = Field(ge=1, le=1)
    id: UUID
    task_id: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    epoch: Strict = Field(ge=1)
    reply_to: UUID | None
    ts: AwareDatetime
    idempotency_key: str = Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    seq: Strict = Field(ge=1, lt=2**53)


def _envelope(direction: str, type_: str, payload: type[Wire]) -> type[Envelope]:
    name = "".join(part.capitalize() for part in type_.replace(".", " ").split()) + "Envelope"
    annotations = {"type": Literal[type_], "payload": payload}
    return type(name, (Envelope,), {"__annotations__": annotations, "__module__": __name__, "__doc__": f"{type_} ({direction})."})


OUT_PAYLOADS: dict[str, type[Wire]] = {
    "progress": Progress,
    "heartbeat": Heartbeat,
    "llm.request": LlmRequest,
    "question": Question,
    "permission.request": PermissionRequest,
    "artifact": ArtifactMessage,
    "task.complete": TaskComplete,
    "task.failed": TaskFailed,
}
IN_PAYLOADS: dict[str, type[Wire]] = {
    "task.assign": TaskAssign,
    "task.cancel": TaskCancel,
    "llm.response": LlmResponse,
    "answer": Answer,
    "permission.grant": PermissionGrant,
    "permission.deny": PermissionDeny,
    "capability.lease": CapabilityLease,
    "receipt": Receipt,
}


def _union(direction: str, payloads: dict[str, type[Wire]]) -> TypeAdapter[Any]:
    members = tuple(_envelope(direction, type_, payload) for type_, payload in payloads.items())
    union: Any = members[0]
    for member in members[1:]:
        union = union | member
    return TypeAdapter(Annotated[union, Field(discriminator="type")])


FROM_WORKER: TypeAdapter[Any] = _union("out", OUT_PAYLOADS)
FROM_BROKER: TypeAdapter[Any] = _union("in", IN_PAYLOADS)
