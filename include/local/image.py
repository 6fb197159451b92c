"""One step of a start, as a process of its own: the image of the sandboxes, if Docker answers and it is missing.

Without it the warden takes the next rung and its node says why; so a failure here is told, and stops nothing.
"""

from __future__ import annotations

from include.errors import SandboxFailed
from include.local.checks import docker_problem
from include.sandbox.image import build_image
from include.settings import settings


def main() -> None:
    """Build the image where it can be built."""
    mine = settings()
    if problem := docker_problem(mine.docker_host):
        print(f"no image is needed: {problem}")
        return
    try:
        print(f"{mine.image} {'is made' if build_image(mine) else 'is there'}")
    except SandboxFailed as error:
        print(f"{mine.image} could not be made: {error}")


if __name__ == "__main__":
    main()
