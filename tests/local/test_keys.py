"""A model key leaves the environment before anything starts, and no process of ours ever shows it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from include.local import keys
from include.local.child import child_environment
from include.settings import ROOT
from tests.conftest import wait_until
from tests.kit.scale import patience

SECRET = f"sk-test-{secrets.token_hex(6)}-never-shown"  # of this run: another one on this machine shows its own


def showing(secret: str) -> set[int]:
    """The processes (but the asking one) whose environment shows a secret."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid() and secret.encode() in (entry / "environ").read_bytes():
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def test_keys_are_moved_into_one_private_file_an_agent(tmp_path: Path) -> None:
    environment = {
        "ANTHROPIC_API_KEY": f" {SECRET}\n",
        "ANTHROPIC_API_KEY_NOVA": "n",
        "ANTHROPIC_API_KEY_DEEP_BLUE": "d",
        "ANTHROPIC_AUTH_TOKEN": "t",
    }
    environment |= {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1", "PATH": "/bin"}
    assert keys.move_out(environment, tmp_path / "keys") == ["deep-blue", "jarvis", "nova"]
    assert environment == {"ANTHROPIC_BASE_URL": "http://127.0.0.1:1", "PATH": "/bin"}
    assert (tmp_path / "keys" / "jarvis.key").read_text() == SECRET
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700


def test_an_empty_key_is_no_key(tmp_path: Path) -> None:
    environment = {"ANTHROPIC_API_KEY": "  "}
    assert keys.move_out(environment, tmp_path) == [] and environment == {} and keys.holders(tmp_path) == []


def test_what_the_supervisor_starts_gets_no_variable_of_a_model(monkeypatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("ANTHROPIC_API_KEY", SECRET)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
    assert not any(name.startswith("ANTHROPIC_") for name in child_environment(tmp_path))


def test_the_command_line_runs_without_the_key_that_it_was_given(tmp_path: Path) -> None:
    environment = os.environ | {"AIRLOCK_HOME": str(tmp_path), "ANTHROPIC_API_KEY": SECRET, "PYTHONPATH": str(ROOT)}
    # `reset` asks, and so lives until it is answered: time to look at /proc.
    command = subprocess.Popen(
        [sys.executable, "-m", "include.cli", "reset"],
        env=environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    control = subprocess.Popen(["sleep", "60"], env={"SHOWN": SECRET})
    try:
        wait_until("the key is stored", (tmp_path / "keys" / "jarvis.key").exists)
        wait_until("only the control shows it", lambda: showing(SECRET) == {control.pid}, 10)
        assert command.poll() is None
    finally:
        control.kill()
        control.wait()
        out, _ = command.communicate(b"n\n", timeout=patience(20))
    assert b"Delete everything" in out and command.returncode == 1
