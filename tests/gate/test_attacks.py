"""Every way to fake green runs in the verifier's own program, and its facts go to the gatekeeper; so does an honest twin of each."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from include.gate import rules
from include.gate.models import Allowed, TestReport
from include.repository.models import FileChange
from include.sandbox import toolbox as toolbox_module
from include.settings import Settings
from include.worker.paths import Paths
from tests.gate.attacks.ways import BASE, FEATURE, NOT_PROVABLE, RULE, WAYS, Files
from tests.kit.scale import patience
from tests.worker.sandbox import GIT, start_program

WITHOUT = {
    "sentinels": "from include.worker import sentinels\nsentinels.broken = lambda *_: ()",
}
"""Code that switches one defence off in the verifier's process."""
AT_ONCE = 2


class Ran(NamedTuple):
    """A report, and what the change changed."""

    report: TestReport
    changes: list[FileChange]
    seconds: float


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder outside of /tmp, with a toolbox: sealed children may reach /tmp."""
    folder = Path(tempfile.mkdtemp(prefix="airlock-attacks-", dir="/var/tmp"))
    folder.chmod(0o755)
    toolbox_module.build(Settings(home=folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def verify(place: Path) -> Callable[..., Ran]:
    """Runs a change of the small repository through ``worker.pyz verify``: ``verify(change, judged=…, without=…, base=…)``."""

    def run(change: Files, *, judged: bool = True, without: str = "", base: dict[str, str] | None = None) -> Ran:
        root = Path(tempfile.mkdtemp(dir=place))
        paths = Paths(Settings(home=place).toolbox_dir, root / "run-task", root / "run-secret", root / "workspace", root / "scratch")
        for folder in (paths.task, paths.secret, paths.workspace, paths.scratch):
            folder.mkdir()
        before = commit(root / "source", dict(BASE if base is None else base))
        commit(root / "source", change)
        git(root / "source", "bundle", "create", "-q", str(paths.bundle), "airlock-base")
        paths.spec.write_text(json.dumps({"test_timeout_s": 60} | ({"base": before} if judged else {})))
        started = time.monotonic()
        process = start_program("verify", paths, before=without)
        _, stderr = process.communicate(timeout=patience(120))
        seconds = time.monotonic() - started
        assert process.returncode == 0, stderr
        report = TestReport.model_validate_json(paths.handin.read_bytes(), strict=True)
        shutil.rmtree(root)
        return Ran(report, [FileChange(path=path, action="modified", additions=1, deletions=1, patch="") for path in change], seconds)

    return run


def git(folder: Path, *words: str) -> str:
    return subprocess.run([*GIT, "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout.strip()


def commit(folder: Path, files: Files) -> str:
    if not folder.exists():
        folder.mkdir()
        git(folder, "init", "-q")
    for path, text in files.items():
        where = folder / path
        where.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            where.unlink()
        elif text.startswith("link:"):
            shutil.rmtree(where)
            where.symlink_to(text.removeprefix("link:"))
        else:
            where.write_text(text)
    git(folder, "add", "-A", "-f")
    git(folder, "commit", "-qm", "a change", "--allow-empty")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def known(verify: Callable[..., Ran]) -> dict[str, str]:
    """The base's own run."""
    return dict(verify({}, judged=False).report.tests)


@pytest.fixture(scope="module")
def judge(great_expectations: ModuleType, known: dict[str, str]) -> Callable[..., dict[str, set[str]]]:
    """Says which expectations do not hold, by name of the run; warnings are left out, so an empty set is green."""
    gatekeeper = great_expectations.Gatekeeper()

    def ask(runs: dict[str, Ran], touches: dict[str, tuple[str, ...]] | None = None) -> dict[str, set[str]]:
        sheets = []
        for name, ran in runs.items():
            bounds = Allowed("change", (touches or {}).get(name, RULE), 1, 1)
            row = rules.facts_for(ran.report, known, ran.changes, bounds).model_dump(mode="json")
            sheets.append(great_expectations.Sheet(name, "change", row))
        found = {}
        for answer in gatekeeper.judge(sheets):
            found[answer.id] = {each.expectation for each in answer.findings if each.severity != "warning"}
            assert answer.green == (not found[answer.id])
        return found

    return ask


def together(verify: Callable[..., Ran], changes: dict[str, Files], **given: object) -> dict[str, Ran]:
    """Run several changes side by side; what is the same change runs once."""
    once = {json.dumps(change, sort_keys=True): change for change in changes.values()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ran = dict(zip(once, pool.map(lambda change: verify(change, **given), once.values()), strict=True))
    return {name: ran[json.dumps(change, sort_keys=True)] for name, change in changes.items()}


def test_every_way_to_fake_green_is_red(verify: Callable[..., Ran], judge: Callable[..., dict[str, set[str]]]) -> None:
    runs = together(verify, {name: way.change for name, way in WAYS.items()})
    found = judge(runs)
    assert {name: guards for name, guards in found.items() if not guards & WAYS[name].guards} == {}, [
        (name, run.report) for name, run in runs.items() if not found[name] & WAYS[name].guards
    ]


def test_no_honest_twin_is_red(verify: Callable[..., Ran], judge: Callable[..., dict[str, set[str]]]) -> None:
    runs = together(verify, {name: way.twin for name, way in WAYS.items()})
    found = judge(runs, {name: way.twin_touches for name, way in WAYS.items()})
    assert found == {name: {"harness"} if way.asks else set() for name, way in WAYS.items()}, [
        (name, runs[name].report) for name in WAYS if found[name] - {"harness"}
    ]


@pytest.mark.parametrize("defence", ["harness", "sentinels"])
def test_control_without_a_defence_they_pass(verify: Callable[..., Ran], judge: Callable[..., dict[str, set[str]]], defence: str) -> None:
    ways = {name: way.change for name, way in WAYS.items() if way.needs == defence}
    assert len(ways) >= 4
    off = {"judged": False} if defence == "harness" else {"without": WITHOUT[defence]}
    assert judge(together(verify, ways, **off)) == {name: set() for name in ways}


def test_what_is_not_provable_passes(verify: Callable[..., Ran], judge: Callable[..., dict[str, set[str]]]) -> None:
    """Named in docs/promises.md: the day that one of them is red, it leaves that list."""
    assert judge(together(verify, NOT_PROVABLE)) == {name: set() for name in NOT_PROVABLE}


def test_a_later_task_may_not_empty_the_tests_of_an_earlier_one(
    verify: Callable[..., Ran], judge: Callable[..., dict[str, set[str]]]
) -> None:
    """The base is what the goal branch has verified, not only the commit that the goal began with."""
    earlier = BASE | {path: text for path, text in FEATURE.items() if text}
    emptied: Files = {
        "calc.py": (FEATURE["calc.py"] or "").replace("return a - b", "return a * b"),
        "tests/test_sub.py": "def test_sub():\n    assert True\n",
    }
    ran = {"later": verify(emptied, base=earlier), "control": verify(emptied, base=earlier, judged=False)}
    assert judge(ran) == {"later": {"rewritten"}, "control": set()}
    named = judge({"later": ran["later"]}, {"later": (*RULE, "tests/test_sub.py")})
    assert named == {"later": set()}, "a plan that names the file lets it be rewritten, and that is told"


@pytest.mark.slow
def test_cost(verify: Callable[..., Ran]) -> None:
    """Figures for the record: judged by the base, against the plain run of the same tree."""
    plain, judged = (min(verify(FEATURE, judged=judged).seconds for _ in range(3)) for judged in (False, True))
    print(f"verify: plain {plain:.2f} s, judged {judged:.2f} s, {judged / plain:.2f} x")
    assert judged < plain * 6 + 2
