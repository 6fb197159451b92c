"""What all tests share: real servers, whole Airlocks, and which lane each test runs in. The parts are in ``tests/kit``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from include.settings import ROOT
from tests.kit import lanes, promises, run_folder, shared, spread
from tests.kit.quiet import figure
from tests.kit.servers import corpora, free_port, servers, settings
from tests.kit.shared import bubblewrap_stack, containers, containers_alone, docker_stack, processes, processes_alone
from tests.kit.waiting import wait_until

__all__ = [
    "ROOT", "bubblewrap_stack", "containers", "containers_alone", "corpora", "docker_stack", "figure", "free_port", "processes",
    "processes_alone", "servers", "settings", "wait_until",
]  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=0, help="tests/e2e/test_people.py: play every action at every place so many times.")
    parser.addoption("--cells", default="", help="tests/e2e/test_people.py: only those that this regular expression is found in.")
    parser.addoption("--write-schema", action="store_true", help="tests/state/test_schema.py: write docs/schema.sql anew.")
    parser.addoption("--people-json", default="", help="tests/e2e/test_people.py: write its table to this file as JSON.")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lanes.mark(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    spread.tell(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> spread.Groups | None:
    return spread.Groups(config, log) if config.getvalue("dist") == "loadgroup" else None


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the first process of the run
        run_folder.make()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shared.abandon()
        run_folder.remove()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    try:
        return (yield)
    finally:
        shared.leave(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test that fails says which promises are broken with it (docs/promises.md)."""
    report = yield
    if report.failed and (broken := promises.of_item(item)):  # type: ignore[attr-defined]
        report.sections.append(("Promises that this test holds", "\n".join(broken)))  # type: ignore[attr-defined]
    return report
