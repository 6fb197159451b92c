"""Judge facts by the expectation suites, in batches, with Great Expectations. Whatever cannot be judged is red.

Importing this module takes some 3 s of processor time; only the gatekeeper's nursery does it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include import lazy
from include.gate.models import Facts, Finding

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no sums are made here, and a process with one thread can be forked
lazy.defer("scipy.stats", "altair")  # for expectations about distributions, and their charts: a third of all that is loaded
with lazy.without("sqlalchemy", "pyspark"):  # optional to it: our frames are pandas'
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from great_expectations.exceptions.exceptions import GreatExpectationsError

SUITES = Path(__file__).parent / "suites"
_KEY = "verdict"
_COMPLETE = {"result_format": "COMPLETE", "unexpected_index_column_names": [_KEY]}

logging.getLogger("great_expectations").setLevel(logging.WARNING)


class Sheet(NamedTuple):
    """One row to judge: the verdict's id, the suite's name, and the facts as they are stored."""

    id: str
    suite: str
    facts: Any


class Judged(NamedTuple):
    """The judgement of one row."""

    id: str
    green: bool
    findings: tuple[Finding, ...]
    suite_sha256: str | None


class _Meta(BaseModel):
    """What we add to an expectation: the words for a person, and its id in what Great Expectations answers."""

    message: str = Field(min_length=1)
    id: str = ""


class _Expectation(BaseModel):
    """One expectation of a suite's file; what is not named here is Great Expectations' own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    id: str
    meta: _Meta
    severity: Literal["critical", "ask", "warning"] = "critical"

    @property
    def plain(self) -> dict[str, Any]:
        """The expectation as Great Expectations takes it, which knows no ``ask``."""
        known = {"severity": "critical" if self.severity == "ask" else self.severity}
        return self.model_dump(exclude={"id"}, exclude_unset=True) | {"meta": {"message": self.meta.message, "id": self.id}} | known


class _Document(BaseModel):
    """A suite's file."""

    model_config = ConfigDict(frozen=True)

    name: str
    expectations: tuple[_Expectation, ...]


class _Row(BaseModel):
    """A row that broke an expectation."""

    verdict: Any = None


class _Details(BaseModel):
    unexpected_index_list: Any = None


class _Configuration(BaseModel):
    meta: _Meta


class _Outcome(BaseModel):
    """Great Expectations' answer to one expectation."""

    expectation_config: _Configuration
    success: Any
    exception_info: Any = None
    result: _Details = _Details()


class _Result(BaseModel):
    """Great Expectations' answer to a suite."""

    success: Any
    results: list[_Outcome]


class _Suite(NamedTuple):
    name: str
    sha256: str
    expectations: tuple[_Expectation, ...]
    validation: Any


class Gatekeeper:
    """All suites, loaded once.

    Args:
        folder: of the suites' JSON files.

    Raises:
        ValueError: a suite is not what it should be; the message names the file.
    """

    def __init__(self, folder: Path = SUITES) -> None:
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        frames = context.data_sources.add_pandas("facts").add_dataframe_asset("facts").add_batch_definition_whole_dataframe("all")
        self._suites = {path.stem: _load(context, frames, path) for path in sorted(folder.glob("*.json"))}

    def judge(self, batch: Sequence[Sheet]) -> list[Judged]:
        """Judge a batch, suite by suite, each in one frame. The order is that of the batch."""
        answers: dict[str, Judged] = {}
        for name in {question.suite for question in batch}:
            mine = [question for question in batch if question.suite == name]
            suite = self._suites.get(name)
            found = _judge(suite, mine) if suite else [_red(question, "suite", f"There is no suite {name!r}.", None) for question in mine]
            answers.update((answer.id, answer) for answer in found)
        return [answers[question.id] for question in batch]


def _load(context: Any, frames: Any, path: Path) -> _Suite:
    data = path.read_bytes()
    try:
        document = _Document.model_validate_json(data)
        if len({expectation.id for expectation in document.expectations}) != len(document.expectations):
            raise ValueError("each expectation needs an id of its own")
        plain = [expectation.plain for expectation in document.expectations]
        suite = context.suites.add(gx.ExpectationSuite(name=document.name, expectations=plain))
        if len(suite.expectations) != len(plain):  # an expectation that it does not know is only logged, and left out
            raise ValueError("Great Expectations does not take every expectation; its log names which")
    except (ValueError, KeyError, TypeError, GreatExpectationsError) as error:
        raise ValueError(f"{path}: {error}") from error
    validation = gx.ValidationDefinition(name=path.stem, data=frames, suite=suite)
    return _Suite(path.stem, hashlib.sha256(data).hexdigest(), document.expectations, context.validation_definitions.add(validation))


def _judge(suite: _Suite, batch: list[Sheet]) -> list[Judged]:
    """Rows that are no facts are red by themselves; the others are judged together, and an error while judging makes all of them red."""
    known: dict[str, Facts] = {}
    answers = []
    for question in batch:
        try:
            known[question.id] = _facts(question)
        except (ValidationError, ValueError) as error:
            answers.append(_red(question, "facts", f"The facts cannot be judged: {str(error)[:500]}", suite))
    judged = [question for question in batch if question.id in known]
    if not judged:
        return answers
    try:
        broken = _broken(suite, known)
    except Exception as error:  # a gate that failed is a gate that is shut
        words = f"The gate itself failed ({type(error).__name__}: {str(error)[:300]}). Look at the gatekeeper's log."
        logging.getLogger(__name__).exception("the suite %s could not be judged", suite.name)
        return answers + [_red(question, "gate", words, suite) for question in judged]
    return answers + [_answer(suite, question.id, known[question.id], broken[question.id]) for question in judged]


def _facts(question: Sheet) -> Facts:
    facts = Facts.model_validate_json(json.dumps(question.facts), strict=True)
    if facts.kind != question.suite:
        raise ValueError(f"they are of the kind {facts.kind}, and the suite is {question.suite}")
    if any(value < 0 or value > 2**53 for value in facts.model_dump().values() if isinstance(value, int)):
        raise ValueError("a count is negative or too large")
    return facts


def _broken(suite: _Suite, known: dict[str, Facts]) -> dict[str, list[str]]:
    """Per verdict, the ids of the expectations that do not hold.

    Raises:
        ValueError: the result is not one answer an expectation.
    """
    frame = pd.DataFrame([{_KEY: key} | facts.model_dump(mode="json") for key, facts in known.items()])
    answer = suite.validation.run(batch_parameters={"dataframe": frame}, result_format=_COMPLETE).to_json_dict()
    result = _Result.model_validate(answer)
    outcomes = {outcome.expectation_config.meta.id: outcome for outcome in result.results}
    if set(outcomes) != {expectation.id for expectation in suite.expectations} or len(outcomes) != len(result.results):
        raise ValueError("Great Expectations did not answer each expectation once")
    broken: dict[str, list[str]] = {key: [] for key in known}
    for name, outcome in outcomes.items():
        for key in _failing(outcome, list(known)):
            broken[key].append(name)
    if any(broken.values()) == bool(result.success):
        raise ValueError("Great Expectations' sum does not agree with its parts")
    return broken


def _failing(outcome: _Outcome, everyone: list[str]) -> list[str]:
    """Say whose rows fail. Without a plain list of rows, a failure is everybody's."""
    if _raised(outcome.exception_info):
        return everyone
    if outcome.success is True:
        return []
    found = outcome.result.unexpected_index_list
    keys = [_Row.model_validate(row).verdict for row in found] if isinstance(found, list) else []
    return keys if keys and set(keys) <= set(everyone) else everyone


def _raised(info: Any) -> bool:
    """Exception information is either one record or one a metric."""
    if not isinstance(info, dict):
        return info is not None
    if "raised_exception" in info:
        return info.get("raised_exception") is not False
    return any(_raised(each) for each in info.values())


def _answer(suite: _Suite, key: str, facts: Facts, broken: list[str]) -> Judged:
    findings = tuple(_finding(expectation, facts) for expectation in suite.expectations if expectation.id in broken)
    return Judged(key, all(finding.severity == "warning" for finding in findings), findings, suite.sha256)


def _finding(expectation: _Expectation, facts: Facts) -> Finding:
    told = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in facts}
    told |= {"problem": facts.problem.rstrip(".") or "no reason was given"}
    return Finding(expectation=expectation.id, message=expectation.meta.message.format(**told), severity=expectation.severity)


def _red(question: Sheet, name: str, words: str, suite: _Suite | None) -> Judged:
    return Judged(question.id, False, (Finding(expectation=name, message=words),), suite.sha256 if suite else None)
