"""``./airlock test``: where the time went, what is red, and the parts of the long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.cli import lanes, long, testing
from include.cli.lanes import Lane
from include.errors import BadInput

REPORT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.broker.test_money" name="test_a" time="2.5"/>
<testcase classname="tests.broker.test_money" name="test_b" time="0.5"><failure message="m">no</failure></testcase>
<testcase classname="tests.test_house" name="test_c" time="1"><skipped message="m">why</skipped></testcase>
</testsuite></testsuites>"""


def test_the_time_is_added_up_by_package_and_failures_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(REPORT)
    found = lanes.read(tmp_path)
    assert {name: (times.tests, times.failed, times.skipped, times.seconds) for name, times in found.items()} == {
        "tests/broker": (2, 1, 0, 3.0),
        "tests": (1, 0, 1, 1.0),
    }
    assert [line.split()[0] for line in lanes.table(found)] == ["package", "tests/broker", "tests"]
    assert lanes.summary(found) == "1 passed, 1 failed, 1 skipped"


def test_lanes_run_side_by_side_and_a_red_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "meet.py").write_text(
        "import pathlib, sys, time\n"
        "me, other = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])\n"
        "me.touch()\nend = time.monotonic() + 60\n"
        "while not other.exists() and time.monotonic() < end: time.sleep(0.01)\n"
        "print('met', me.name)\nsys.exit(0 if other.exists() and me.name == 'a' else 3)\n"
    )
    environment = lanes.environment(PYTHONPATH=str(tmp_path))
    pairs = {"one": ("a", "b"), "two": ("b", "a")}
    both = [Lane(name, ("meet", str(tmp_path / me), str(tmp_path / other)), environment) for name, (me, other) in pairs.items()]
    said: list[str] = []
    assert lanes.run(both, tmp_path, said.append) == {"one": 0, "two": 3}
    assert sorted(line for line in said if "met" in line) == ["one | met a", "two | met b"]


def test_tests_get_no_setting_and_no_key_of_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AIRLOCK_HOME", "ANTHROPIC_API_KEY", "AIRLOCK_CORPORA", "AIRLOCK_TEST_KEEP_LOGS"):
        monkeypatch.setenv(name, "x")
    names = {name for name in lanes.environment() if name.startswith(("AIRLOCK_", "ANTHROPIC_"))}
    assert {"AIRLOCK_CORPORA", "AIRLOCK_TEST_KEEP_LOGS"} <= names and not {"AIRLOCK_HOME", "ANTHROPIC_API_KEY"} & names


def test_the_page_of_the_long_run_says_what_when_and_on_what_machine() -> None:
    done = long.Done(
        part="tests/a.py", commit="abc", at="2026-11-28 06:00 UTC", seconds=90, words="1 passed", green=True, told=("p50 3 ms",)
    )
    page = long.page([done], "2 cores")
    assert "| `tests/a.py` | 1 passed | 1.5 | 2026-11-28 06:00 UTC | abc |" in page and "Machine: 2 cores." in page and "p50 3 ms" in page


def test_what_would_run_nothing_or_something_else_is_refused_with_the_remedy() -> None:
    assert long.chosen(["tests/a.py", "tests/b.py"], ["b.py"]) == ["tests/b.py"]
    with pytest.raises(BadInput, match=r"--long: no part is named like c\.py.*There are: tests/a\.py"):
        long.chosen(["tests/a.py"], ["c.py"])
    with pytest.raises(BadInput, match=r"--fast: takes no further arguments, and got tests/local.*Leave them out"):
        testing.run(["--fast", "tests/local"], print)
