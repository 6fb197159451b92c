"""Debian's Chromium on the Airlock of the end-to-end tests. Run alone (``pytest tests/ui``), its pictures show one goal."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from include.cli.demo import make_sample
from include.settings import load
from tests.conftest import ROOT
from tests.kit.scale import patience
from tests.kit.stack import Stack, repository

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


@pytest.fixture
def airlock(containers: Stack) -> Stack:
    """A running Airlock with the demo's playbooks and those beside this file."""
    return containers


@pytest.fixture(scope="session")
def sample(docker_stack: Stack) -> Path:
    """The demo's sample repository, registered as ``sample``."""
    folder = make_sample(docker_stack.home / "browser")
    assert docker_stack.run("repo", "add", "sample", str(folder)).returncode == 0
    return folder


@pytest.fixture(scope="session")
def small(docker_stack: Stack) -> Path:
    """The tiny project of the end-to-end tests, registered as ``small``."""
    folder = repository(ROOT / "tests" / "e2e" / "tiny", docker_stack.home / "small")
    assert docker_stack.run("repo", "add", "small", str(folder)).returncode == 0
    return folder


@pytest.fixture
def page(airlock: Stack) -> Iterator[Page]:
    """A page of a browser in which the admin is logged in."""
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not there: THE UI IS NOT TESTED. apt-get install chromium")
    settings = load(airlock.home)
    login = {"username": "admin", "password": settings.api_password}
    token = httpx.post(f"{settings.api_url}/auth/token", json=login, timeout=patience(60)).raise_for_status().json()["access_token"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, base_url=settings.api_url)
        context.add_cookies([{"name": "_token", "value": token, "url": settings.api_url}])
        context.set_default_timeout(patience(60) * 1000)
        expect.set_options(timeout=patience(10) * 1000)
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
