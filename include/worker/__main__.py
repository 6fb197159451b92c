"""``python3 -I -S worker.pyz work | verify``; the zipapp's own children are ``seal``, ``sequence`` and ``search``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # who seals itself has no use for it, and each sealed child would pay for it
    from include.worker.paths import Paths


def main(arguments: list[str], paths: Paths | None = None) -> int:
    """Run the program that the first argument names; returns the exit code.

    Args:
        arguments: the program and its arguments.
        paths: where things lie; a sandbox has the defaults.
    """
    match arguments:
        case ["work"]:
            from include.worker import paths as places
            from include.worker import work

            return work.main(paths or places.Paths())
        case ["verify"]:
            from include.worker import paths as places
            from include.worker import verify

            return verify.main(paths or places.Paths())
        case ["seal", _, _, *_]:
            from include.worker import seal

            return seal.main(arguments[1:])
        case ["sequence", _]:
            from include.worker import sequence

            return sequence.main(arguments[1:])
        case ["search", _]:
            from include.worker import search

            return search.main(arguments[1:])
    print("usage: worker.pyz work | verify", file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
