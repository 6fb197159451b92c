"""What differs between two trees, found folder by folder and within bounds: a tree of a few hundred bytes can stand for a million files."""

from __future__ import annotations

from typing import NamedTuple

from include.errors import BundleRefused
from include.repository import letters
from include.repository.objects import Folder, Reader, TreeEntry

MAX_CHANGES = 10_000
"""Changes of all commits of a hand-in together, and new names; counted before any is looked at."""
_MAX_DEPTH_BYTES = 4_096  # Linux holds no longer path


class Change(NamedTuple):
    """A file (or link, or submodule) that differs; None: it is not there."""

    path: bytes
    before: TreeEntry | None
    after: TreeEntry | None


class NewName(NamedTuple):
    """A name that its folder did not have before, and another name of that folder that could be taken for it."""

    path: bytes
    twin: bytes | None


class Compared(NamedTuple):
    """All that differs between two trees."""

    changes: list[Change]
    names: list[NewName]


def compare(reader: Reader, before: str | None, after: str | None, at_most: int = MAX_CHANGES) -> Compared:
    """Compare two trees by their objects; what is the same in both is not entered.

    Args:
        at_most: changes, and new names, after which it stops.

    Raises:
        BundleRefused: there are more, or what the trees name is not there.
    """
    found = Compared([], [])
    waiting = [(b"", before, after)]
    while waiting:
        path, old_tree, new_tree = waiting.pop()
        if len(path) > _MAX_DEPTH_BYTES:
            raise BundleRefused(f"the path {path[:80]!r}… has more than {_MAX_DEPTH_BYTES} bytes")
        old, new = reader.folder(old_tree), reader.folder(new_tree)
        found.names.extend(_new_names(path, old, new))
        for name in sorted(old.keys() | new.keys()):
            was, now = old.get(name), new.get(name)
            if was == now:
                continue
            if (was and was.is_folder) or (now and now.is_folder):
                waiting.append((path + name + b"/", was.id if was and was.is_folder else None, now.id if now and now.is_folder else None))
            if _is_file(was) or _is_file(now):
                found.changes.append(Change(path + name, was if _is_file(was) else None, now if _is_file(now) else None))
        if max(len(found.changes), len(found.names), len(waiting)) > at_most:
            raise BundleRefused(
                f"more than {at_most} files are changed in its commits, which is the most that is taken. Hand in a smaller change"
            )
    return found


def _is_file(entry: TreeEntry | None) -> bool:
    return entry is not None and not entry.is_folder


def _new_names(path: bytes, old: Folder, new: Folder) -> list[NewName]:
    added = new.keys() - old.keys()
    if not added:
        return []
    first: dict[str, bytes] = {}
    for name in sorted(new, key=lambda name: name in added):  # what was there before comes first
        first.setdefault(letters.key(name), name)
    twins = ((name, first[letters.key(name)]) for name in sorted(added))
    return [NewName(path + name, path + other if other != name else None) for name, other in twins]
