"""The base of every model: a value that is checked when it is made, and does not change afterwards."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError


class Frozen(BaseModel):
    """A value: unknown names are refused, nothing can be set after it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def storable(text: str) -> str:
    """Check that PostgreSQL can hold a text.

    Raises:
        ValueError: it has a NUL character.
    """
    if "\x00" in text:
        raise ValueError("leave out the NUL character (U+0000): the database cannot hold it")
    return text


Text = Annotated[str, AfterValidator(storable)]
"""A text that the database can hold."""


class FieldProblem(NamedTuple):
    """What is wrong with a value, and in which of its fields (empty: with the whole of it)."""

    where: str
    what: str


def problems(error: ValidationError) -> list[FieldProblem]:
    """Say what is wrong with a value that was refused, without the value itself."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    return [FieldProblem(".".join(str(part) for part in one["loc"]), one["msg"]) for one in found]
