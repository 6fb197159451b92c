"""Model keys: out of the environment and into one file of mode 0600 an agent, before anything is started."""

from __future__ import annotations

import os
import re
from collections.abc import MutableMapping
from pathlib import Path

from include.local import modes

DEFAULT_AGENT = "jarvis"
_KEY = re.compile(r"^ANTHROPIC_API_KEY(?:_(?P<agent>[A-Z][A-Z0-9_]{0,31}))?$")
_SECRET = re.compile(r"^ANTHROPIC_(API_KEY|AUTH_TOKEN)")


def move_out(environment: MutableMapping[str, str], keys_dir: Path) -> list[str]:
    """Store every model key of the environment and remove it there.

    Args:
        environment: changed in place: no variable that may hold a credential of a model is left.
        keys_dir: ``<agent>.key`` is written there.

    Returns:
        The agents whose key was stored.
    """
    agents = []
    for name in [name for name in environment if _SECRET.match(name)]:
        value = environment.pop(name).strip()
        match = _KEY.match(name)
        if match and value:
            agent = (match["agent"] or DEFAULT_AGENT).lower().replace("_", "-")
            _store(keys_dir / f"{agent}.key", value)
            agents.append(agent)
    return sorted(agents)


def _store(path: Path, value: str) -> None:
    modes.make(path.parent.parent)  # the home, which may not be there yet
    path.parent.mkdir(exist_ok=True, mode=0o700)
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value)
    new.replace(path)


def holders(keys_dir: Path) -> list[str]:
    """List the agents that have a key."""
    return sorted(path.stem for path in keys_dir.glob("*.key"))
