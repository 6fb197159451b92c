"""Give a command one option for each field of a model, so that what may be asked for is said in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Command = Callable[..., None]
_PLAIN = (str, int, float, bool, Path)


def of_model(model: type[BaseModel], **others: Any) -> Callable[[Command], Command]:
    """Make a decorator for a command that takes the fields' values as one dictionary, before its own options.

    Args:
        model: each of its fields becomes an option with the field's name, default and description.
        others: for a field that a person gives otherwise than the model holds it: its annotation for typer, or that and its default.
    """

    def decorate(command: Command) -> Command:
        _, *own = inspect.signature(command, eval_str=True).parameters.values()
        asked = [_parameter(name, field, others.get(name)) for name, field in model.model_fields.items()]

        def run(**given: Any) -> None:
            command({name: given.pop(name) for name in model.model_fields}, **given)

        parameters = [*asked, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _parameter(name: str, field: FieldInfo, other: Any) -> inspect.Parameter:
    default: Any = inspect.Parameter.empty if field.is_required() else field.default
    annotation = Annotated[field.annotation if field.annotation in _PLAIN else str, typer.Option(help=field.description)]  # type: ignore[valid-type]
    if other is not None:
        annotation, default = other if isinstance(other, tuple) else (other, default)
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
