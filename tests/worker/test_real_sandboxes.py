"""The zipapp with its fixed places inside real sandboxes: bubblewrap with a dropped uid, and a container of the hardened kind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.gate.models import TestReport
from tests.kit.scale import patience
from tests.worker.sandbox import SAMPLE, Attempt, calls, make_bundle, says

UID = 29_999
DROP = [
    "setpriv",
    f"--reuid={UID}",
    f"--regid={UID}",
    "--clear-groups",
    "--no-new-privs",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--reset-env",
    "--",
]
SPY = """
import os, socket, subprocess, sys
def reached(what):
    try:
        what(); return True
    except OSError:
        return False
def test_spy():
    relay = lambda: socket.socket(socket.AF_UNIX).connect("/run/task/relay.sock")
    parent = os.getppid()
    found = {"relay": reached(relay), "secrets": reached(lambda: os.listdir("/run/secret")), "handin": reached(lambda: open("/workspace/handin", "w")),
             "hook": reached(lambda: open("/workspace/git/hooks/pre-commit", "w")), "memory": reached(lambda: open(f"/proc/{parent}/mem")),
             "environment": reached(lambda: open(f"/proc/{parent}/environ").read()), "signal": reached(lambda: os.kill(parent, 0)),
             "keys in environment": any("KEY" in name.upper() for name in os.environ)}
    assert not any(found.values()), found
"""


@pytest.fixture
def folders(place: Path) -> Iterator[tuple[Path, Path, Path]]:
    """task, secret and workspace, owned by the sandbox's uid."""
    place.chmod(0o755)
    made = [place / name for name in ("task", "secret", "workspace")]
    for folder in made:
        folder.mkdir()
    base = make_bundle(SAMPLE | {"tests/test_spy.py": SPY}, made[0] / "base.bundle")
    (made[0] / "spec.json").write_text(json.dumps({"test_timeout_s": 60, "base": base}))
    yield made[0], made[1], made[2]


def bubblewrap(toolbox: Path, task: Path, secret: Path, workspace: Path, program: str) -> list[str]:
    if os.getuid() != 0 or not shutil.which("bwrap") or not shutil.which("setpriv"):
        pytest.skip("needs root, bubblewrap and setpriv")
    for folder in (secret, workspace, *secret.iterdir()):
        os.chown(folder, UID, UID)
    system = (
        "--ro-bind /usr /usr --symlink usr/lib /lib --symlink usr/lib64 /lib64 --symlink usr/bin /bin --symlink usr/sbin /sbin --dir /etc"
    )
    own = (
        "--proc /proc --dev /dev --tmpfs /dev/shm --tmpfs /tmp --chdir /workspace --clearenv --setenv PATH /usr/bin:/bin --setenv HOME /tmp"
    )
    base = "bwrap --unshare-user --disable-userns --unshare-all --die-with-parent --new-session --cap-drop ALL"
    mounts = ["--ro-bind", str(toolbox), "/opt/airlock", "--ro-bind", str(task), "/run/task", "--bind", str(secret), "/run/secret"]
    command = ["timeout", "-k", "5", "60", "python3", "-I", "-S", "/opt/airlock/worker.pyz", program]
    return [*DROP, *base.split(), *system.split(), *own.split(), *mounts, "--bind", str(workspace), "/workspace", *command]


def container(toolbox: Path, task: Path, secret: Path, workspace: Path, program: str) -> list[str]:
    if subprocess.run(["docker", "image", "inspect", "airlock/worker:latest"], capture_output=True).returncode != 0:
        pytest.skip("needs a Docker engine with the image airlock/worker:latest")
    for folder in (secret, workspace, *secret.iterdir()):
        os.chown(folder, 10001, 10001)
    limits = "--network none --read-only --user 10001:10001 --cap-drop ALL --security-opt no-new-privileges:true --pids-limit 256 --memory 1g --init"
    own = "--tmpfs /tmp:rw,nosuid,nodev,noexec,size=256m,mode=1777 -e HOME=/tmp"
    mounts = [
        "-v",
        f"{toolbox}:/opt/airlock:ro",
        "-v",
        f"{task}:/run/task:ro",
        "-v",
        f"{secret}:/run/secret",
        "-v",
        f"{workspace}:/workspace",
    ]
    seccomp = ["--security-opt", f"seccomp={os.environ['AIRLOCK_TEST_SECCOMP']}"] if "AIRLOCK_TEST_SECCOMP" in os.environ else []
    command = ["timeout", "-k", "5", "60", "python3", "-I", "-S", "/opt/airlock/worker.pyz", program]
    return ["docker", "run", "--rm", *limits.split(), *seccomp, *own.split(), *mounts, "airlock/worker:latest", *command]


ENGINES = [pytest.param(bubblewrap, id="bubblewrap"), pytest.param(container, id="container", marks=pytest.mark.docker)]


@pytest.mark.parametrize("engine", ENGINES)
def test_verify_reports_from_inside(engine, toolbox, folders):
    task, secret, workspace = folders
    started = time.monotonic()
    run = subprocess.run(engine(toolbox, task, secret, workspace, "verify"), capture_output=True, text=True, timeout=patience(90))
    print(f"{engine.__name__}: verify took {time.monotonic() - started:.2f} s")
    assert run.returncode == 0, run.stdout + run.stderr
    report = TestReport.model_validate_json((workspace / "handin").read_bytes())
    print(report.output[-3000:])
    assert report.tests["tests/test_add.py::test_add"] == "passed" and report.exit_code is not None and report.problem is None
    assert report.tests["tests/test_spy.py::test_spy"] == "passed", report.output


@pytest.mark.parametrize("engine", ENGINES)
def test_work_runs_inside(engine, toolbox, folders):
    task, secret, workspace = folders
    paths_like = type("Places", (), {"key": secret / "key.json", "socket": task / "relay.sock"})()
    new = calls(
        ("write_file", {"path": "new.py", "content": "x = 1\n"}),
        ("search_files", {"pattern": "x"}),
        ("run_tests", {}),
        ("git_commit", {"message": "m"}),
    )
    run = Attempt(paths_like, [new, says("done")])
    started = time.monotonic()
    run.relay.start(), run.broker.start(), run.broker.assign_task()
    child = subprocess.run(engine(toolbox, task, secret, workspace, "work"), capture_output=True, text=True, timeout=patience(90))
    print(f"{engine.__name__}: work took {time.monotonic() - started:.2f} s; {run.broker.of('progress')[0]['payload']['step']}")
    run.close()
    assert child.returncode == 0 and run.broker.errors == [], (child.stderr, run.broker.errors)
    results = list(run.results())
    assert [result["is_error"] for result in results] == [False] * 4, results
    assert json.loads(results[2]["content"])["problem"] is None
    assert run.ending["type"] == "task.complete" and (workspace / "handin").is_file() and not (secret / "key.json").exists()
