"""A goal by the form, watched in Airflow's UI in a real browser. AIRLOCK_PICTURES=1 renews docs/pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from include.cli.demo import GOAL
from tests.kit.scale import patience
from tests.kit.stack import SLOWLY, Stack

pytestmark = pytest.mark.slow
Picture = Callable[[Page, str], None]


def fill_in(page: Page, goal: str, repository: str) -> None:
    """Open submit_goal's form and fill in what has to be; nothing needs to be unfolded for that."""
    page.goto("/dags/submit_goal")
    page.get_by_test_id("trigger-dag-button").first.click()
    page.locator("[name=element_goal]").fill(goal)
    page.locator("#element_repository, [name=element_repository]").first.fill(repository)


def state(page: Page, word: str, seconds: int) -> None:
    expect(page.get_by_test_id("header-card").get_by_test_id("state-badge").first).to_have_text(
        re.compile(word), timeout=patience(seconds) * 1000
    )


def follow(page: Page, link: Locator) -> Page:
    """Click a link that leads to a goal, in this tab or in one of its own; returns the tab."""
    link.click()
    for _ in range(int(patience(60) * 10)):
        for tab in page.context.pages:
            if "/dags/goal_" in tab.url:
                return tab
        page.wait_for_timeout(100)
    pytest.fail(f"the link did not lead to a goal's DAG: {[tab.url for tab in page.context.pages]}")


def submitted(page: Page, picture: Picture) -> Page:
    """Fill in the form, submit, follow the launch step's button; returns the tab with the goal's run."""
    fill_in(page, f"{GOAL}\n\n{SLOWLY}", "sample")
    for section in ("Budget, deadline and landing", "For bots and planners"):
        expect(page.get_by_role("button", name=section)).to_be_visible()
    picture(page, "form")
    page.get_by_test_id("trigger-dag-submit").click()
    page.wait_for_url(re.compile("/dags/submit_goal/runs/"))
    state(page, "Success", 120)
    page.goto(f"{page.url.split('?')[0]}/tasks/launch/details")
    button = page.get_by_role("link", name="Goal", exact=True)
    expect(button).to_be_visible()
    picture(page, "launch")
    return follow(page, button)


def live_log(page: Page, run: str, picture: Picture) -> None:
    """The worker's milestones come while the lease step runs."""
    page.goto(f"{run}/tasks/rate.lease")
    expect(page.get_by_text("wrote quantity/rate.py")).to_be_visible(timeout=patience(90) * 1000)
    state(page, "Deferred", 30)
    expect(page.get_by_text(re.compile("ran \\d+ tests: .* 0 failed"))).to_be_visible()
    picture(page, "lease-live")
    state(page, "Success", 90)
    expect(page.get_by_text(re.compile("Handed in:")).first).to_be_visible()


def graph(page: Page, run: str, picture: Picture) -> None:
    """The plan as a diamond of groups with titles."""
    page.goto(run)
    page.locator("button[value=graph]").click()
    for key, title in (("rate", "Rates of transfers"), ("column", "A rate column in the report"), ("docs", "Public names")):
        expect(page.get_by_test_id(f"rf__node-{key}")).to_contain_text(title)
    page.get_by_role("button", name="Collapse Details Panel").click()
    page.wait_for_timeout(1000)
    page.locator(".react-flow__controls-fitview").click()
    picture(page, "graph")
    page.get_by_role("button", name="Details Panel").click()
    page.locator("button[value=grid]").click()


def documentation(page: Page, dag: str, picture: Picture) -> None:
    """Goal, plan and steps in words; the escapes that make text inert are not to be seen."""
    page.goto(dag)
    page.get_by_test_id("markdown-button").click()
    dialog = page.locator("[role=dialog][data-scope=dialog][data-state=open]")
    expect(dialog).to_contain_text("Add rates (bytes a second), keep every existing test green, and add tests for what is new.")
    expect(dialog).to_contain_text(
        "column: A rate column in the report (after rate; touches quantity/report.py, tests/test_report_rate.py)"
    )
    assert "&" not in dialog.inner_text()
    picture(page, "documentation")


def finished(page: Page, run: str, picture: Picture) -> None:
    """All green, each step with a name of its own, and the first try that the gate sent back."""
    page.goto(run)
    state(page, "Success", 240)
    page.get_by_test_id("expand-all-button").click()
    for name in ("rate · admit", "column · verify", "docs · merge", "Land", "Report", "Outcome"):
        expect(page.get_by_role("link", name=name, exact=True).first).to_be_visible()
    picture(page, "grid")
    page.goto(f"{run}/tasks/column.verify?try_number=1")
    expect(page.get_by_text(re.compile("Rework: The gate is red: 3 tests fail"))).to_be_visible()
    expect(page.get_by_role("button", name="2", exact=True)).to_be_visible()
    picture(page, "red-first-try")
    page.goto(f"{run}/tasks/report")
    expect(page.get_by_text(re.compile("column: COMPLETED as .* 2 attempts"))).to_be_visible()
    expect(page.get_by_text(re.compile("Landed on main as"))).to_be_visible()
    picture(page, "report")


def test_a_goal_by_the_form_watched_to_its_end(airlock: Stack, sample: Path, page: Page, picture: Picture) -> None:
    goal = submitted(page, picture)
    run = goal.url.split("?")[0]
    dag = run.split("/runs/")[0]
    live_log(goal, run, picture)
    graph(goal, run, picture)
    documentation(goal, dag, picture)
    finished(goal, run, picture)
    goal.goto("/dags")
    expect(
        goal.get_by_test_id("dag-card").get_by_role("link", name="Show how fast each transfer was: a rate in the… · sample")
    ).to_be_visible()
    picture(goal, "dags")
    (ended,) = airlock.sql("SELECT state FROM goal_runs WHERE dag_id = %s", dag.rsplit("/", 1)[-1])
    assert ended["state"] == "COMPLETED"


def test_a_mistake_in_the_form_is_answered_in_words(airlock: Stack, page: Page) -> None:
    """What only a look can tell ends the first step with the field and the remedy, in the log that the red step opens with."""
    fill_in(page, "UI twice: wherever that is", "smple")
    page.get_by_test_id("trigger-dag-submit").click()
    page.wait_for_url(re.compile("/dags/submit_goal/runs/"))
    state(page, "Failed", 60)
    page.goto(f"{page.url.split('?')[0]}/tasks/intake")
    expect(page.get_by_text(re.compile("repository: 'smple' is not registered")).first).to_be_visible()
    assert not airlock.sql("SELECT 1 FROM goals WHERE repository = 'smple'")
