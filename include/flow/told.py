"""What a step tells Airflow: the lines of its log, its result (XCom) and its errors, all made inert.

They quote models, workers and repositories; Airflow's pages and whoever reads a log file in a terminal only show them.
"""

from __future__ import annotations

import logging
from typing import Any

from include import inert


class InertLog:
    """A step's logger: each line, with its values, is one inert line."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def info(self, words: str, *values: object, **more: Any) -> None:
        """Say what happens."""
        self._log.info(_line(words, values), **inert.value(more))

    def warning(self, words: str, *values: object, **more: Any) -> None:
        """Say what a person should know of."""
        self._log.warning(_line(words, values), **inert.value(more))

    def error(self, words: str, *values: object, **more: Any) -> None:
        """Say why it ends."""
        self._log.error(_line(words, values), **inert.value(more))

    def __getattr__(self, name: str) -> Any:
        """Leave all else to the logger: Airflow's own code uses the same one."""
        return getattr(self._log, name)


class Told:
    """For steps and triggers, named before Airflow's class: their log is an inert one."""

    @property
    def log(self) -> Any:
        """The logger that Airflow gives, made inert."""
        return InertLog(super().log)  # type: ignore[misc]


def _line(words: str, values: tuple[object, ...]) -> str:
    """The line that the logger would have made: nothing is left to be put into it."""
    return inert.line(logging.LogRecord("", 0, "", 0, words, values, None).getMessage())


def quiet(error: BaseException) -> None:
    """Make the words of an error inert, and of those that led to it: Airflow logs all of them with the trace."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        link.args = tuple(inert.lines(each) if isinstance(each, str) else each for each in link.args)
        link = link.__cause__ or link.__context__
