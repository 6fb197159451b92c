"""Objects of a mirror, one by one and each within a limit: a git answers one question after the other, and is ended if it takes long."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal, NamedTuple

from include.errors import BundleRefused
from include.repository import git

MAX_TREE_BYTES = 8 * 1024 * 1024
"""One folder, without what is in its folders: about 150,000 names."""
MAX_COMMIT_BYTES = 64 * 1024
"""One commit: its message, mostly."""
MAX_ENTRIES = 3_000_000
"""Names of folders that are looked at for one hand-in, each as often as it is met: some seconds of work. Honest ones have thousands.

A folder that is entered a million times by way of a few objects is refused here, at the same count on every machine.
"""
FOLDER, LINK, SUBMODULE = b"40000", b"120000", b"160000"


class TreeEntry(NamedTuple):
    """What a name stands for in a folder: its mode as it is written there, and an id."""

    mode: bytes
    id: str

    @property
    def is_folder(self) -> bool:
        """Say whether it is a folder."""
        return self.mode.lstrip(b"0") == FOLDER


Folder = dict[bytes, TreeEntry]


class Reader:
    """Reads objects from a git that runs.

    Args:
        questions: its stdin.
        answers: its stdout.
    """

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions = questions
        self._answers = answers
        self._met = 0
        self._last: dict[str, Folder] = {}

    def size(self, name: str) -> int:
        """Ask for the size of a blob.

        Raises:
            BundleRefused: there is none.
        """
        return self._ask("info", "blob", name)

    def content(self, kind: Literal["blob", "tree", "commit"], name: str, at_most: int) -> bytes:
        """Read an object.

        Raises:
            BundleRefused: it is not there, is of another kind, or is larger than ``at_most``.
        """
        size = self._ask("contents", kind, name)
        if size > at_most:
            raise BundleRefused(f"a {kind} has {size} bytes ({name[:12]}); at most {at_most} are taken")
        content = self._answers.read(size + 1)
        if len(content) != size + 1:
            raise BundleRefused(f"git stopped in the middle of {name[:12]}")
        return content[:-1]

    def folder(self, name: str | None) -> Folder:
        """Read a tree; None is an empty one. Each name that it holds counts, each time.

        Raises:
            BundleRefused: there is none, or more names were looked at than is taken.
        """
        folder = self._last.get(name) if name else {}
        if folder is None:
            folder = entries(self.content("tree", str(name), MAX_TREE_BYTES))
            self._last = {**dict(list(self._last.items())[-7:]), str(name): folder} if len(folder) < 1_000 else self._last
        self._met += len(folder) + 1
        if self._met > MAX_ENTRIES:
            raise BundleRefused(f"to compare its folders means to look at more than {MAX_ENTRIES} names, which is the most that is done")
        return folder

    def at(self, tree: str, path: bytes) -> TreeEntry | None:
        """Find what a path stands for, or None."""
        entry: TreeEntry | None = TreeEntry(FOLDER, tree)
        for part in path.split(b"/"):
            entry = self.folder(entry.id).get(part) if entry and entry.is_folder else None
        return entry

    def _ask(self, question: str, kind: str, name: str) -> int:
        try:
            self._questions.write(f"{question} {name}\n".encode())
            self._questions.flush()
            answer = self._answers.readline(200).split()
        except OSError:
            answer = []
        if len(answer) != 3:
            raise BundleRefused(f"the bundle is not complete: {name[:12]} cannot be read")
        if answer[1] != kind.encode():
            raise BundleRefused(f"{name[:12]} is a {answer[1].decode()}, not a {kind}")
        return int(answer[2])


@contextmanager
def reading(mirror: Path, how: git.How) -> Iterator[Reader]:
    """Start a git that reads objects, and end it."""
    with git.talk(["cat-file", "--batch-command"], mirror, how) as (questions, answers):
        yield Reader(questions, answers)


def entries(raw: bytes) -> Folder:
    """Read a tree object: ``<mode> <name>\\0<20 bytes of id>``, again and again."""
    found, at = {}, 0
    while at < len(raw):
        space = raw.index(b" ", at)
        end = raw.index(b"\0", space)
        found[raw[space + 1 : end]] = TreeEntry(raw[at:space], raw[end + 1 : end + 21].hex())
        at = end + 21
    return found
