"""What the warden finds at its start: a rung, or the reason why there is none."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.errors import SandboxFailed
from include.sandbox import folders, probe
from include.settings import Settings


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="airlock-probe-") as name:
        Path(name).chmod(0o711)
        (Path(name) / "sandboxes").mkdir()
        yield Path(name)


async def test_without_docker_it_is_bubblewrap_and_the_notice_says_why(home: Path) -> None:
    engine = await probe.choose(Settings(home=home, docker_host="unix:///nowhere.sock"), quota=False)
    assert engine.rung == "bubblewrap" and "no engine answers" in engine.notice and "no quota" in engine.notice


async def test_without_the_image_it_is_bubblewrap_and_the_notice_says_why(home: Path) -> None:
    engine = await probe.choose(Settings(home=home, image="airlock/nothing:here"), quota=True)
    assert engine.rung == "bubblewrap" and "Docker:" in engine.notice


async def test_what_was_asked_for_and_is_not_there_is_refused(home: Path) -> None:
    with pytest.raises(SandboxFailed, match="nothing runs unsandboxed"):
        await probe.choose(Settings(home=home, engine="docker", docker_host="unix:///nowhere.sock"), quota=True)


async def test_a_machine_without_python_gets_a_copy_of_ours(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "HOST_PYTHON", Path("/nonexistent"))
    engine = await probe.choose(Settings(home=home, engine="bubblewrap"), quota=True)
    assert engine.rung == "bubblewrap" and list((home / "sandboxes").glob(".python-*"))


def test_a_closed_home_gets_its_sandboxes_elsewhere(home: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root drops to other users")
    assert folders.root(Settings(home=home)) == home / "sandboxes"
    home.chmod(0o700)
    assert folders.root(Settings(home=home)).is_relative_to("/var/lib/airlock")
