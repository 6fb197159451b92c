"""``python -m include.cli``: the command line, started by ``./airlock``."""

from __future__ import annotations

import os
import sys

from pydantic import ValidationError

from include.errors import BadInput
from include.frozen import problems
from include.local import keys
from include.settings import Settings, load


def read_settings() -> Settings:
    """Read the settings of this home.

    Raises:
        BadInput: a variable, or a stored value, cannot be used.
    """
    try:
        return load()
    except ValidationError as error:
        first = problems(error)[0]
        remedy = "Set it to a value that docs/settings.md allows, or unset it; stored values are in home/runtime.json."
        raise BadInput(f"AIRLOCK_{first.where.upper()}", first.what, remedy) from None


def main() -> None:
    """Move model keys out of the environment first, also out of this process's own, then run the command."""
    try:
        settings = read_settings()
    except BadInput as error:
        print(f"airlock: {error}", file=sys.stderr)
        sys.exit(2)
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
