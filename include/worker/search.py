"""``worker.pyz search ROOT``: a pattern on standard input, matching lines as JSON on standard output.

In a process of its own, sealed and timed: a regular expression can run for ever, and it would hold up the heartbeats.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

from include.worker import strict_json
from include.worker.errors import ToolRefused
from include.worker.files import MAX_FILE_BYTES, Tree

MAX_MATCHES = 200
MAX_LINE = 300


class Found(NamedTuple):
    """What a search found: lines, and whether there are more."""

    matches: list[str]
    more: bool


def answered(out: bytes) -> Found:
    """Read what ``main`` wrote."""
    return Found(**strict_json.loads(out))


def main(arguments: list[str]) -> int:
    """Search every text file below the root; exit code 2 with the reason if the pattern is no regular expression."""
    try:
        pattern = re.compile(sys.stdin.buffer.read().decode("utf-8"))
    except (re.error, RecursionError, OverflowError) as error:
        print(error, file=sys.stderr)
        return 2
    root = Path(arguments[0])
    matches = find(Tree(root, root), pattern)
    sys.stdout.buffer.write(strict_json.dumps(Found(matches[:MAX_MATCHES], len(matches) > MAX_MATCHES)._asdict()))
    return 0


def find(tree: Tree, pattern: re.Pattern[str]) -> list[str]:
    """Find up to ``MAX_MATCHES`` + 1 lines, each as ``path:number:line``."""
    found: list[str] = []
    for path, about in tree.walk("."):
        if about.st_size > MAX_FILE_BYTES:
            continue
        try:
            text = tree.read(path).decode("utf-8")
        except (ToolRefused, UnicodeDecodeError):
            continue  # not text, or gone since
        for number, line in enumerate(text.splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path}:{number}:{line[:MAX_LINE]}")
                if len(found) > MAX_MATCHES:
                    return found
    return found
