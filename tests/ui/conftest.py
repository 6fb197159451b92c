"""An Airlock of its own for the browser (it starts empty, so that pictures show one goal), and Debian's Chromium."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from playwright.sync_api import Page, sync_playwright

from include.local.demo import make_sample
from include.settings import load
from tests.conftest import ROOT
from tests.e2e import conftest as e2e
from tests.e2e.conftest import Stack, docker_answers

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = ROOT / "docs" / "pictures"
SLOW_S = 20
"""How long the first worker of the demo thinks at its end here: a page takes some seconds to load, and its work is to be seen live."""


@pytest.fixture(scope="session")
def airlock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running Airlock with the demo's playbook, one worker of which is slow, and the playbooks beside this file."""
    if not docker_answers():
        pytest.skip("no Docker engine answers: the UI is not tested here")
    slow = tmp_path_factory.mktemp("playbooks")
    book = yaml.safe_load((ROOT / "include" / "local" / "playbooks" / "demo.yaml").read_text())
    book["tasks"]["rate"][0][-1]["delay_s"] = SLOW_S
    (slow / "demo.yaml").write_text(yaml.safe_dump(book))
    yield from e2e._stack("docker", AIRLOCK_PLAYBOOKS=f"{slow}:{Path(__file__).parent / 'playbooks'}")


@pytest.fixture(scope="session")
def sample(airlock: Stack) -> Path:
    """The demo's sample repository, registered as ``sample``."""
    folder = make_sample(airlock.home)
    assert airlock.run("repo", "add", "sample", str(folder)).returncode == 0
    return folder


@pytest.fixture(scope="session")
def small(airlock: Stack) -> Path:
    """The tiny project of the end-to-end tests, registered as ``small``."""
    folder = e2e.repository(e2e.HERE / "tiny", airlock.home / "small")
    assert airlock.run("repo", "add", "small", str(folder)).returncode == 0
    return folder


@pytest.fixture
def page(airlock: Stack) -> Iterator[Page]:
    """A page of a browser in which the admin is logged in."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there: THE UI IS NOT TESTED. apt-get install chromium")
    settings = load(airlock.home)
    login = {"username": "admin", "password": settings.api_password}
    token = httpx.post(f"{settings.api_url}/auth/token", json=login, timeout=60).raise_for_status().json()["access_token"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=settings.api_url)
        context.add_cookies([{"name": "_token", "value": token, "url": settings.api_url}])
        context.set_default_timeout(60_000)
        yield context.new_page()
        browser.close()


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    """Keep a picture of the page for the docs, when AIRLOCK_PICTURES=1."""

    def take(page: Page, name: str) -> None:
        if os.environ.get("AIRLOCK_PICTURES") == "1":
            page.wait_for_timeout(1500)  # things that slide and fade
            page.screenshot(path=PICTURES / f"{name}.png")

    return take
