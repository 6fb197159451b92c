"""What lies in a home is its owner's: tried as another local user, who knows every path."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from include.errors import Unavailable
from include.local import control, keys, modes, runtime
from include.repository import bundles, mirror
from include.sandbox import folders, workspace
from include.settings import Settings
from tests.worker.sandbox import GIT

LEASE = UUID(int=7)
LOOK = """
import os, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
        print(path)
    except OSError:
        pass
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """Where a home will be: nobody's parent folder is closed."""
    place = Path(tempfile.mkdtemp(prefix="airlock-modes-", dir="/var/tmp"))
    place.chmod(0o755)
    before = os.umask(0o022)
    yield place / "home"
    os.umask(before)
    shutil.rmtree(place, ignore_errors=True)


def fill(home: Path) -> Settings:
    """Do what comes first, with the product's own functions: a key, ports, a mirror, a bundle, a hand-in."""
    assert keys.move_out({"ANTHROPIC_API_KEY": "k"}, home / "keys") == ["jarvis"]
    assert stat.S_IMODE(home.stat().st_mode) == 0o700  # from the first moment
    runtime.write(home, {})
    settings, real, attempt = Settings(home=home), home.parent / "real", home / "attempt"
    subprocess.run([*GIT, "init", "-q", str(real)], check=True)
    subprocess.run([*GIT, "-C", str(real), "commit", "-q", "--allow-empty", "-m", "secret"], check=True)
    made = mirror.ensure_mirror(settings, "sample", str(real))
    commit = mirror.fetch_base(settings, "sample", str(real), "airlock-base")
    bundles.export_bundle(settings, made, commit)
    (attempt / "workspace").mkdir(parents=True)
    (attempt / "workspace" / "handin").write_bytes(b"handed in")
    assert workspace.take_handin(attempt, settings.handins_dir, LEASE).sha256
    shutil.rmtree(attempt)
    return settings


def everything(home: Path) -> list[Path]:
    return [home, *sorted(home.rglob("*"))]


def seen(paths: list[Path]) -> set[str]:
    """Which of these another user of the machine can list or read."""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", LOOK, *map(str, paths)], capture_output=True, text=True, check=True, cwd="/")
    return set(done.stdout.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
@pytest.mark.parametrize("passed", [False, True], ids=["closed", "sandboxes pass"])
def test_another_user_sees_nothing_of_a_home(home: Path, passed: bool) -> None:
    settings = fill(home)
    if passed:
        home.chmod(0o711)
        assert folders.root(settings) == home / "sandboxes"
    paths = everything(home)
    kinds = {path.relative_to(home).parts[0] for path in paths[1:]}
    assert {"keys", "mirrors", "bundles", "handins", "runtime.json"} <= kinds
    assert seen(paths) == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be another user")
def test_control_a_home_as_it_was_made_is_read_and_up_closes_it(home: Path) -> None:
    settings = fill(home)
    for folder in (home, settings.bundles_dir, settings.mirrors_dir, settings.handins_dir):
        folder.chmod(0o755)
    paths = everything(home)
    found = seen(paths)
    (bundle,) = settings.bundles_dir.iterdir()
    assert {str(home), str(bundle), str(settings.handins_dir), str(settings.mirrors_dir)} <= found
    with pytest.raises(Unavailable):
        control.up(home, lambda _: None, offline=True, patience_s=5, supervisor="no_such_module")
    assert seen(everything(home)) == set()
    assert stat.S_IMODE(home.stat().st_mode) == 0o711  # as root its sandboxes lie in it, and pass


def test_a_closed_home_stays_closed_and_its_folders_too(home: Path) -> None:
    modes.close(home)
    for name in modes.PRIVATE:
        (home / name).mkdir(mode=0o755)
    (home / "sandboxes").mkdir()
    (home / "sandboxes").chmod(0o711)
    modes.close(home)
    open_ = {path.name for path in home.iterdir() if path.stat().st_mode & 0o077}
    assert (stat.S_IMODE(home.stat().st_mode), open_) == (0o700, {"sandboxes"})
