"""Worker definitions."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from include.catalog import store
from include.catalog.models import WorkerDefinition
from include.errors import NotFound
from include.worker.tool_definitions import TOOL_NAMES


def test_the_developer_has_every_tool():
    worker = store.load("python_developer")
    assert worker.tools == TOOL_NAMES and worker.trust_level == "supervised" and worker.constraints == ()
    assert "python_developer" in store.names()
    with pytest.raises(ValidationError):
        worker.trust_level = "autonomous"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["python_develper", "../definitions/python_developer", ""])
def test_an_unknown_name_says_which_there_are(name):
    with pytest.raises(NotFound, match="Workers: python_developer"):
        store.load(name)


def test_a_near_name_is_suggested():
    with pytest.raises(NotFound, match="Did you mean python_developer"):
        store.load("python_develper")


@pytest.mark.parametrize(
    "change",
    [{"tools": ["read_file"]}, {"tools": ["finish", "shell"]}, {"tools": ["finish", "finish"]}, {"other": 1}, {"trust_level": "root"}],
)
def test_a_definition_that_breaks_the_form_is_refused(change):
    good = store.load("python_developer").model_dump()
    with pytest.raises(ValidationError):
        WorkerDefinition.model_validate(good | change)
