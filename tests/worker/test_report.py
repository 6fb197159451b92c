"""What a test run says about every way a test can end, or end the run; each report is one of the gate's model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest

from include.gate.models import TestReport
from include.worker import judge, pytest_report
from include.worker.git import Repository
from include.worker.paths import Paths
from include.worker.pytest_report import RunReport
from tests.kit.scale import limit, patience
from tests.worker.sandbox import start_program

OUTCOMES = """
import os, pytest
from sample import add
def test_pass(): assert add(1, 2) == 3
def test_fail(): assert add(1, 2) == 4
def test_skip(): pytest.skip("no")
@pytest.mark.skip
def test_mark_skip(): pass
@pytest.mark.xfail
def test_xfail(): assert False
@pytest.mark.xfail
def test_xpass(): pass
@pytest.mark.xfail(strict=True)
def test_xpass_strict(): pass
@pytest.fixture
def broken(): raise RuntimeError
def test_setup(broken): pass
@pytest.fixture
def late():
    yield
    raise RuntimeError
def test_teardown(late): pass
@pytest.mark.parametrize("n", [1, 1, "ä b"])
def test_many(n): pass
class TestGroup:
    def test_in_class(self): pass
"""
PREFIX = "tests/test_all.py::"
SRC = {"src/sample/__init__.py": "def add(a, b): return a + b\n"}


def cloned_and_run(paths: Paths, timeout_s: int) -> RunReport:
    Repository(paths).clone("task")
    return pytest_report.run(paths, timeout_s)


@pytest.fixture
def run(sandbox, apart) -> Callable[..., RunReport]:
    """Runs the tests of a repository with these files."""

    def run_tests(files: dict[str, str], timeout_s: float = limit(60)) -> RunReport:
        report = apart(cloned_and_run, sandbox(files=files), int(timeout_s))
        TestReport.model_validate_json(json.dumps(report._asdict()))
        return report

    return run_tests


def test_every_outcome(run):
    report = run(SRC | {"tests/test_all.py": OUTCOMES})
    outcomes = {name.removeprefix(PREFIX): outcome for name, outcome in report.tests.items()}
    many = {name: outcome for name, outcome in outcomes.items() if name.startswith("test_many")}
    assert len(many) == 3 and set(many.values()) == {"passed"}
    assert {name: outcome for name, outcome in outcomes.items() if name not in many} == {
        "test_pass": "passed", "test_fail": "failed", "test_skip": "skipped", "test_mark_skip": "skipped", "test_xfail": "skipped",
        "test_xpass": "passed", "test_xpass_strict": "failed", "test_setup": "error", "test_teardown": "error", "TestGroup::test_in_class": "passed",
    }  # fmt: skip
    assert (report.exit_code, report.problem) == (1, None) and "assert 3 == 4" in report.output


def test_flat_layout_and_the_projects_own_settings(run):
    """Given a package beside its tests, settings in pyproject, a conftest, a test that needs the current folder and a subprocess."""
    files = {
        "flat.py": "x = 1\n",
        "lib/deep.py": "y = 2\n",
        "pyproject.toml": "[tool.pytest.ini_options]\npythonpath = ['lib']\naddopts = '-x -q'\ntestpaths = ['checks']\n",
        "conftest.py": "import pytest\n@pytest.fixture\ndef three(): return 3\n",
        "checks/test_a.py": "import deep, flat, subprocess, sys\n\ndef test_a(three): assert flat.x + deep.y == three\ndef test_b(): assert 0\n"
        "def test_c(): subprocess.run([sys.executable, '-c', 'import flat'], check=True)\ndef test_d():\n    try: exit(3)\n    except SystemExit: pass\n",
    }
    report = run(files)
    assert list(report.tests.values()) == ["passed", "failed", "passed", "passed"], "-x does not hide what comes after"
    assert report.problem is None


def test_no_test(run):
    report = run({"a.py": "x = 1\n"})
    assert report.tests == {} and report.exit_code == 5 and "no test was collected" in report.problem


def test_missing_module(run):
    report = run({"test_a.py": "import numpy\ndef test_a(): pass\n"})
    assert report.tests == {"test_a.py": "error"} and "No module named 'numpy'" in report.problem


def test_missing_module_in_conftest(run):
    report = run({"conftest.py": "import numpy\n", "test_a.py": "def test_a(): pass\n"})
    assert report.tests == {} and "No module named 'numpy'" in report.problem


def test_one_broken_file_does_not_hide_the_others(run):
    report = run({"test_a.py": "import numpy\n", "test_b.py": "def test_b(): pass\n", "test_c.py": "def test_c(:\n"})
    assert report.tests == {"test_a.py": "error", "test_c.py": "error", "test_b.py::test_b": "passed"}
    assert report.exit_code == 1 and report.problem is None


@pytest.mark.slow
def test_timeout(run):
    seconds = int(limit(4))
    report = run({"test_a.py": "import time\ndef test_a(): pass\ndef test_b(): time.sleep(1000)\n"}, timeout_s=seconds)
    assert report.exit_code is None and f"within {seconds} s" in report.problem and report.tests == {"test_a.py::test_a": "passed"}
    assert report.duration_ms < (seconds + patience(5)) * 1000


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("os._exit(0)", 0),
        ("os._exit(125)", None),
        ("os.kill(os.getpid(), 9)", 137),
        ("os.closerange(3, 100)", 1),
        ("os.abort()", 134),
    ],
)
def test_a_test_that_ends_the_process_is_a_problem(run, end, code):
    report = run({"test_a.py": f"import os\ndef test_a(): pass\ndef test_b():\n    {end}\ndef test_c(): pass\n"})
    assert report.problem is not None, report
    assert report.exit_code == code or end == "os.closerange(3, 100)"
    assert len(report.tests) < 3


def test_a_test_that_kills_its_parents(run):
    """The seal lets no signal out, so the run goes on; only the sealed process itself can be ended from inside."""
    code = "import os\ndef test_a():\n    for pid in (os.getppid(), -1):\n        try: os.kill(pid, 9) if pid > 1 else None\n        except OSError as e: print(e)\n"
    report = run({"test_a.py": code})
    assert report.tests == {"test_a.py::test_a": "passed"} and report.problem is None


def test_usage_error_names_it(run):
    report = run({"pytest.ini": "[pytest]\naddopts = --cov=x\n", "test_a.py": "def test_a(): pass\n"})
    assert report.exit_code == 4 and "--cov=x" in report.problem


def test_output_is_capped(run):
    report = run({"test_a.py": "def test_a():\n    print('x' * 50_000_000)\n    assert 0\n"})
    assert report.tests == {"test_a.py::test_a": "failed"} and len(report.output) <= 70_000 and report.problem is None


def test_a_test_left_thread_does_not_hold_the_end(run):
    report = run(
        {"test_a.py": "import threading, time\ndef test_a(): threading.Thread(target=time.sleep, args=(1000,)).start()\n"},
        timeout_s=limit(20),
    )
    assert report.problem is None and report.duration_ms < limit(15_000)


COLLECTED = b'["collected", ["a", "b"]]'
A, B = ([b'["start", "%s"]' % name, b'["outcome", "%s", "passed"]' % name, b'["finish", "%s"]' % name] for name in (b"a", b"b"))
ENDED = b'["ended", 0]'
TOLD: dict[str, list[bytes]] = {
    "deep": [COLLECTED, b"[" * 100_000], "no text": [COLLECTED, b"\xff"], "no list": [COLLECTED, b"{}"],
    "no name": [COLLECTED, b'["start", 1]'], "no outcome": [COLLECTED, A[0], b'["outcome", "a", "green"]'],
    "before the collection": [*A], "unknown": [COLLECTED, b'["start", "c"]'], "doubled": [COLLECTED, *A, *A], "missing": [COLLECTED, *A, ENDED],
    "not started": [COLLECTED, A[1]], "of another": [COLLECTED, A[0], B[1]], "no outcome at its end": [COLLECTED, A[0], A[2]],
    "collected twice": [COLLECTED, COLLECTED], "two of a name": [b'["collected", ["a", "a"]]'],
    "after the end": [COLLECTED, *A, *B, ENDED, A[0]], "ended twice": [COLLECTED, *A, *B, ENDED, ENDED], "true": [COLLECTED, b'["ended", true]'],
}  # fmt: skip


def test_lines_that_fit():
    read = judge.read(b"".join(line + b"\n" for line in [COLLECTED, *A, *B, ENDED]))
    assert read == judge.Lines({"a": "passed", "b": "passed"}, 2, 0, None)
    worst = [COLLECTED, A[0], b'["outcome", "a", "passed"]', b'["outcome", "a", "error"]', A[2]]
    assert judge.read(b"".join(line + b"\n" for line in worst)).tests == {"a": "error"}
    odd = [b'["collected", ["\\ud800"]]', *(line.replace(b'a"', b'\\ud800"', 1) for line in A), ENDED]
    assert judge.read(b"".join(line + b"\n" for line in odd)).tests == {"?": "passed"}
    assert judge.read(COLLECTED + b"\n" + A[0][:5], whole=False).wrong is None


@pytest.mark.parametrize("name", TOLD)
def test_a_line_that_does_not_fit_is_told(name):
    assert judge.read(b"".join(line + b"\n" for line in TOLD[name])).wrong is not None
    assert judge.read(COLLECTED + b"\n" + A[0]).wrong is not None, "a cut line of a whole run"


NOT_THE_RUNNER = "import os\nos._exit(0)\n"
IN_ITS_PLACE = [
    "pytest.py", "_pytest/__init__.py", "pluggy.py", "src/pytest.py", "src/_pytest/__init__.py", "src/pygments/__init__.py", "sitecustomize.py",
    "usercustomize.py", "src/sitecustomize.py", "iniconfig/__init__.py", "packaging/__init__.py", "difflib.py", "src/tempfile.py",
]  # fmt: skip


def test_nothing_of_the_repository_takes_the_runners_place(run):
    files = dict.fromkeys(IN_ITS_PLACE, NOT_THE_RUNNER)
    files["evil.pth"] = files["src/evil.pth"] = "import os; os._exit(0)\n"
    files["evil-1.dist-info/entry_points.txt"] = "[pytest11]\nevil = evil\n"
    files["evil-1.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: evil\nVersion: 1\n"
    files["evil.py"] = NOT_THE_RUNNER
    code = "def test_good(): assert 1\ndef test_bad(): assert 'a' == 'b'\n"
    report = run(files | {"test_a.py": code})
    assert report.tests == {"test_a.py::test_good": "passed", "test_a.py::test_bad": "failed"} and report.problem is None


def test_control_where_the_repository_comes_first_it_takes_the_runners_place(sandbox, apart):
    paths = sandbox(files={"pytest.py": NOT_THE_RUNNER, "test_a.py": "def test_bad(): assert 0\n"})
    site = paths.workspace.parent / "toolbox" / "site"
    shutil.copytree(paths.toolbox, site.parent)
    program = (site / "run_pytest.py").read_text()
    before = "    sys.path.insert(0, packages)\n"
    assert before in program
    (site / "run_pytest.py").write_text(program.replace(before, "    sys.path[:0] = [repository, packages]\n"))
    report = apart(cloned_and_run, paths._replace(toolbox=site.parent), int(limit(60)))
    assert report.exit_code == 0 and report.tests == {} and "left early" not in (report.problem or "")


def test_outcomes_of_a_forger_who_writes_to_every_descriptor(run):
    forge = "import os, json\ndef test_a():\n    for fd in range(3, 512):\n        try: os.write(fd, json.dumps(['outcome', 'x', 'passed']).encode() + b'\\n')\n"
    report = run({"test_a.py": forge + "        except OSError: pass\ndef test_b(): assert 0\n"})
    assert "cannot be true" in report.problem


def test_a_process_that_forks_and_leaves(run):
    code = "import os\ndef test_a():\n    if os.fork():\n        os._exit(0)\ndef test_b(): assert 0\n"
    assert "left early" in run({"test_a.py": code}).problem


def test_a_fork_that_comes_back_into_the_runner_says_nothing(run):
    code = "import os\ndef test_a():\n    if pid := os.fork():\n        os.waitpid(pid, 0)\ndef test_b(): pass\n"
    report = run({"test_a.py": code})
    assert report.tests == {"test_a.py::test_a": "passed", "test_a.py::test_b": "passed"} and report.problem is None


def test_an_exit_code_that_disagrees_is_a_problem(run):
    report = run({"conftest.py": "import os, atexit\ndef pytest_unconfigure(): os._exit(0)\n", "test_a.py": "def test_a(): assert 0\n"})
    assert report.exit_code == 0 and report.problem is not None


@pytest.mark.slow
def test_many_tests(run):
    report = run({"test_a.py": "import pytest\n@pytest.mark.parametrize('n', range(3000))\ndef test_a(n): pass\n"}, timeout_s=limit(100))
    assert report.count("passed") == 3000 and report.problem is None


def test_verify_hands_in_a_report(sandbox):
    paths = sandbox()
    paths.spec.write_text('{"test_timeout_s": 60}')
    process = start_program("verify", paths)
    _, stderr = process.communicate(timeout=patience(60))
    assert process.returncode == 0, stderr
    report = TestReport.model_validate_json(paths.handin.read_bytes())
    assert report.tests == {"tests/test_add.py::test_add": "passed"} and report.exit_code == 0
    assert not (paths.workspace / "handin.part").exists()


def test_verify_without_a_bundle_hands_in_nothing(sandbox):
    paths = sandbox()
    paths.spec.write_text('{"test_timeout_s": 60}')
    paths.bundle.write_bytes(b"nothing")
    process = start_program("verify", paths)
    _, stderr = process.communicate(timeout=patience(60))
    assert process.returncode == 1 and b"git clone" in stderr and not paths.handin.exists()


def test_start_time_and_memory(toolbox):
    """Figures for the record: an idle worker's interpreter with everything loaded."""
    code = "import sys, time\nsys.path.insert(0, sys.argv[1])\nt = time.perf_counter()\nfrom include.worker import work\n"
    code += "print(round((time.perf_counter() - t) * 1000), [line for line in open('/proc/self/status') if 'VmHWM' in line][0].split()[1])"
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(toolbox / "worker.pyz")], capture_output=True, text=True, check=True)
    milliseconds, kibibytes = map(int, run.stdout.split())
    mebibytes = kibibytes / 1024
    print(f"worker: {milliseconds} ms to import, {mebibytes:.1f} MiB")
    assert mebibytes < 40
