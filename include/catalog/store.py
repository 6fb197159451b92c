"""The worker definitions that this installation has: YAML files in ``definitions/``, one a worker."""

from __future__ import annotations

import difflib
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import ValidationError

from include.catalog.models import WorkerDefinition
from include.errors import BadInput, NotFound

FOLDER = Path(__file__).parent / "definitions"


def names() -> list[str]:
    """List the names of all worker definitions, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


@lru_cache
def load(name: str) -> WorkerDefinition:
    """Read the worker definition of this name.

    Raises:
        NotFound: there is none; the message names the nearest.
        BadInput: its file breaks the form.
    """
    if name not in names():  # also keeps names from being paths
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise NotFound(f"there is no worker {name[:80]!r}. {hint}Workers: {', '.join(names())}.")
    file = FOLDER / f"{name}.yaml"
    try:
        return WorkerDefinition.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValidationError) as error:
        raise BadInput(f"worker {name}", str(error), f"Mend {file.name}.") from error
