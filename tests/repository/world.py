"""A mirror with one worker on its base, and packs written byte by byte, as no honest git would."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from pathlib import Path

from include.repository import quarantine
from include.settings import Settings
from tests.repository.people import Repo, hand_in, make_person, make_worker, take_in


class World:
    """One mirror, one worker on its base."""

    def __init__(self, folder: Path, prepare: Callable[[Repo], object] | None = None) -> None:
        self.folder = folder
        self.settings = Settings(home=folder / "home")
        self.person = make_person(folder / "person")
        if prepare:
            prepare(self.person)
        self.mirror, self.base = take_in(self.settings, self.person)
        self.worker = make_worker(self.settings, self.mirror, self.base, folder / "worker")

    def bundle(self) -> Path:
        return hand_in(self.worker, self.folder / "handin")

    def evil(self, *entries: tuple[str, bytes, str]) -> Path:
        """A commit on the base whose tree has these entries beside the honest ones, in git's order."""
        honest = [
            ("100644", b"a.py", self.worker.git("rev-parse", "HEAD:a.py")),
            ("40000", b"docs", self.worker.git("rev-parse", "HEAD:docs")),
        ]
        rows = sorted([*honest, *entries], key=lambda row: row[1] + (b"/" if row[0] == "40000" else b""))
        self.worker.git("update-ref", "refs/heads/task", self.worker.commit_tree(rows, self.base))
        return self.bundle()

    def tree(self, *entries: tuple[str, bytes, str]) -> str:
        """The id of a tree written byte by byte."""
        return self.worker.git("rev-parse", self.worker.commit_tree(list(entries)) + "^{tree}")

    def accept(self, handin: Path, task_run: str = "g1-a") -> str:
        return quarantine.accept(self.mirror, handin, self.base, task_run, 1)

    def packed(self, tip: str, *objects: tuple[int, bytes] | tuple[int, bytes, bytes]) -> Path:
        """A bundle whose pack is written byte by byte: (kind, content), or (6, distance + delta) as it stands."""
        out = b"PACK" + (2).to_bytes(4, "big") + len(objects).to_bytes(4, "big") + b"".join(entry(*each) for each in objects)
        head = f"# v2 git bundle\n-{self.base}\n{tip} refs/heads/task\n\n".encode()
        (self.folder / "handin").write_bytes(head + out + hashlib.sha1(out, usedforsecurity=False).digest())
        return self.folder / "handin"


COMMIT, TREE, BLOB, DELTA = 1, 2, 3, 6


def oid(kind: int, content: bytes) -> str:
    """The id that git gives an object."""
    name = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob"}[kind]
    return hashlib.sha1(name + b" %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def tree(*rows: tuple[bytes, bytes, str]) -> bytes:
    """A tree object: (mode, name, id), in git's order."""
    order = sorted(rows, key=lambda row: row[1] + (b"/" if row[0] == b"40000" else b""))
    return b"".join(mode + b" " + name + b"\0" + bytes.fromhex(each) for mode, name, each in order)


def commit(of: str, *parents: str, message: bytes = b"work\n", who: bytes = b"W <w@x> 1700000000 +0000") -> bytes:
    """A commit object."""
    lines = b"".join(f"parent {each}\n".encode() for each in parents)
    return b"tree %b\n%bauthor %b\ncommitter %b\n\n%b" % (of.encode(), lines, who, who, message)


def entry(kind: int, content: bytes, prefix: bytes = b"") -> bytes:
    """One object of a pack."""
    size, head = len(content) >> 4, [kind << 4 | len(content) & 15]
    while size:
        head[-1] |= 128
        head.append(size & 127)
        size >>= 7
    return bytes(head) + prefix + zlib.compress(content, 1)


def delta(base: int, copies: int) -> bytes:
    """A delta that makes ``copies`` times its whole base, of less than 16 MiB."""
    return number(base) + number(base * copies) + (b"\xf0" + base.to_bytes(3, "little")) * copies


def number(value: int) -> bytes:
    """A number as deltas write it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
