"""Make the image of worker and verify containers without a registry: Debian's own packages. ``python -m include.sandbox.image``."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from include.errors import SandboxFailed
from include.settings import Settings, settings

_PACKAGES: Final = "ca-certificates,python3-minimal,libpython3-stdlib,git,tini"
_DEBOOTSTRAP: Final = [
    "mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}",
    "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*', "bookworm", "-",
]  # fmt: skip


def build_image(mine: Settings | None = None) -> bool:
    """Make ``settings.image`` if the engine does not have it (about half a minute, about 200 MB).

    Returns:
        False if it was there.

    Raises:
        SandboxFailed: the docker command, mmdebstrap or the network of Debian packages is missing; the message says which.
    """
    mine = mine or settings()
    docker = ["docker", "--host", mine.docker_host]
    for tool in ("docker", "mmdebstrap"):
        if not shutil.which(tool):
            raise SandboxFailed(f"{tool} is not installed. `apt-get install docker.io mmdebstrap`, or set AIRLOCK_ENGINE=bubblewrap.")
    if subprocess.run([*docker, "image", "inspect", mine.image], capture_output=True, check=False).returncode == 0:
        return False
    _import(docker, mine.image)
    return True


def _import(docker: list[str], image: str) -> None:
    with subprocess.Popen(_DEBOOTSTRAP, stdout=subprocess.PIPE) as made:
        taken = subprocess.run(
            [*docker, "import", "--change", 'CMD ["bash"]', "-", image], stdin=made.stdout, capture_output=True, text=True, check=False
        )
    if made.returncode:
        subprocess.run([*docker, "image", "rm", image], capture_output=True, check=False)  # of half a system
        raise SandboxFailed(f"mmdebstrap ended with {made.returncode}; it needs root (or user namespaces) and Debian's package servers.")
    if taken.returncode:
        raise SandboxFailed(f"Docker did not import {image}: {taken.stderr.strip()}")


if __name__ == "__main__":
    print("made" if build_image() else "it is there already")
