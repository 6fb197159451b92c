"""What the machine must offer, each with one clear line that says what to do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from include.errors import BadInput
from include.settings import Settings

MIN_FREE_BYTES = 2 * 1024**3


class Check(NamedTuple):
    """One look at the machine."""

    name: str
    ok: bool
    words: str


def docker_problem(docker_host: str) -> str:
    """Say why the Docker engine cannot be used; empty when it answers."""
    import httpx  # not by the commands that need no Docker

    path = docker_host.removeprefix("unix://")
    if not Path(path).exists():
        return f"there is no {path}"
    try:
        with httpx.Client(transport=httpx.HTTPTransport(uds=path), timeout=3) as client:
            answer = client.get("http://docker/_ping")
    except httpx.HTTPError as error:
        return f"{path} does not answer ({type(error).__name__})"
    return "" if answer.status_code == 200 else f"{path} answers {answer.status_code}"


def _image_problem(settings: Settings) -> str:
    has_image = ["docker", "--host", settings.docker_host, "image", "inspect", settings.image]
    if not shutil.which("docker"):
        return "the docker command is not installed"
    if shutil.which("mmdebstrap") or subprocess.run(has_image, capture_output=True, check=False).returncode == 0:
        return ""
    return f"the image {settings.image} is missing, and mmdebstrap, which makes it, is not installed"


def bubblewrap_problem() -> str:
    """Say why bubblewrap cannot be used; empty when it makes a sandbox."""
    binary = shutil.which("bwrap")
    if not binary:
        return "bwrap is not installed"
    probe = [binary, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=10)
    return "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1][:200]


def sandboxes(settings: Settings) -> Check:
    """Find the engine that will hold the workers."""
    docker = docker_problem(settings.docker_host) if settings.engine in ("auto", "docker") else "not asked for"
    if not docker:
        docker = _image_problem(settings)
    if not docker:
        return Check("sandboxes", True, "Docker answers: workers run in containers.")
    if settings.engine == "docker":
        return Check("sandboxes", False, f"AIRLOCK_ENGINE is docker and {docker}. Start dockerd, or unset AIRLOCK_ENGINE.")
    problem = bubblewrap_problem()
    if not problem and settings.engine == "bubblewrap":
        return Check("sandboxes", True, "AIRLOCK_ENGINE is bubblewrap: workers run in it.")
    if not problem:
        return Check("sandboxes", True, f"No usable Docker engine ({docker}): workers run in bubblewrap.")
    return Check(
        "sandboxes", False, f"No sandbox: {docker}, and {problem}. On Debian: apt-get install bubblewrap (or docker.io, and start dockerd)."
    )


def disk(folder: Path) -> Check:
    """Look whether there is room for the state."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    words = f"{free / 1024**3:.1f} GiB free at {there}"
    if free >= MIN_FREE_BYTES:
        return Check("disk", True, f"{words}.")
    return Check("disk", False, f"{words}, and 2 GiB are needed. Free some, or set AIRLOCK_HOME to a folder on another disk.")


def git() -> Check:
    """Look whether git can merge in memory (merge-tree --write-tree, 2.38)."""
    binary = shutil.which("git")
    if not binary:
        return Check("git", False, "git is not installed. On Debian: apt-get install git.")
    version = subprocess.run([binary, "version"], capture_output=True, text=True, check=True).stdout.split()[2]
    numbers = tuple(int(part) for part in version.split(".")[:2])
    return Check(
        "git", numbers >= (2, 38), f"git {version}." if numbers >= (2, 38) else f"git {version} is too old: 2.38 or newer is needed."
    )


def run(settings: Settings) -> list[Check]:
    """Run every check."""
    return [disk(settings.home), git(), sandboxes(settings)]


def require(settings: Settings) -> list[str]:
    """Refuse to start on a machine that cannot do the work.

    Returns:
        Lines worth saying although all is well.

    Raises:
        BadInput: a check failed; the message says what to do.
    """
    checks = run(settings)
    for check in checks:
        if not check.ok:
            raise BadInput(check.name, check.words.rstrip("."), "Then run the command again.")
    return [check.words for check in checks if check.name == "sandboxes"]
