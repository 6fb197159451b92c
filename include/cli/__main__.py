"""``python -m include.cli``: the command line, started by ``./airlock``."""

from __future__ import annotations

import os
import sys

from include.local import keys
from include.settings import load


def main() -> None:
    """Move model keys out of the environment first, also out of this process's own, then run the command."""
    settings = load()
    environment = dict(os.environ)
    secrets = [name for name in environment if name.startswith(("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"))]
    if secrets:
        stored = keys.move_out(environment, settings.keys_dir)
        if stored:
            print(f"The model key of {', '.join(stored)} is now in {settings.keys_dir} (mode 0600).", file=sys.stderr)
        # Only a new program image clears /proc/<pid>/environ.
        os.execve(sys.executable, [sys.executable, "-m", "include.cli", *sys.argv[1:]], environment)
    from include.cli.commands import run

    run()


if __name__ == "__main__":
    main()
