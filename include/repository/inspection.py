"""What a hand-in would bring is judged, commit by commit: one line of commits on its base, plain names and modes, bounded sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from include.errors import BundleRefused
from include.repository import changes, commits, letters, rules
from include.repository.changes import Change, NewName
from include.repository.objects import LINK, MAX_COMMIT_BYTES, SUBMODULE, Reader

_MODES = frozenset({b"100644", b"100755", LINK})
_MAX_LINK_BYTES = 4_096
_LOOKED_AT = 8_000  # as git does: a NUL in the first 8,000 bytes makes a file binary


class HandIn(NamedTuple):
    """A hand-in after git has unpacked it apart.

    Attributes:
        base: the commit that it must build on.
        base_tree: that commit's tree.
        tip: its last commit.
        own: ids of the objects that it brought.
        now: seconds since 1970.
    """

    base: str
    base_tree: str
    tip: str
    own: frozenset[str]
    now: float


def inspect(reader: Reader, handin: HandIn) -> None:
    """Judge a hand-in: everything is counted first and looked at then.

    Raises:
        BundleRefused: the first thing that was found, with what to do.
    """
    trees = [handin.base_tree, *_line(reader, handin)]
    whole = changes.compare(reader, trees[0], trees[-1]).changes
    if len(whole) > rules.MAX_FILES:
        raise BundleRefused(f"{len(whole)} files are changed; at most {rules.MAX_FILES} are taken. Hand in a smaller change")
    steps, room = [], changes.MAX_CHANGES
    for before, after in pairwise(trees):
        step = changes.compare(reader, before, after, room)
        steps.append((after, step))
        room -= max(len(step.changes), len(step.names))
    brought = [change for _, step in steps for change in step.changes]
    for change in brought:
        rules.check_path(change.path)
    for tree, step in steps:
        for name in step.names:
            _check_name(reader, handin.base_tree, name)
        for change in step.changes:
            _check_change(reader, tree, change)
    _check_sizes(reader, handin, brought)


def _line(reader: Reader, handin: HandIn) -> list[str]:
    """Walk from the tip to the base; returns the trees of the commits, the oldest first."""
    at, found = handin.tip, []
    while at != handin.base:
        commit = commits.read(at, reader.content("commit", at, MAX_COMMIT_BYTES), handin.now)
        if not commit.parents:
            raise BundleRefused(f"{at[:12]} has no parent: the bundle shares no history with its base {handin.base[:12]}")
        if len(commit.parents) > 1:
            raise BundleRefused(
                f"{at[:12]} has {len(commit.parents)} parents; hand in one line of commits on {handin.base[:12]}, no merges"
            )
        if at not in handin.own:
            raise BundleRefused(f"the bundle builds on {at[:12]}, and not on its base {handin.base[:12]}. Commit on top of the base")
        found.append(commit.tree)
        if len(found) > commits.MAX_COMMITS:
            raise BundleRefused(f"the bundle has more than {commits.MAX_COMMITS} commits, which is the most that is taken. Squash them")
        at = commit.parents[0]
    return found[::-1]


def _check_name(reader: Reader, base: str, name: NewName) -> None:
    text = rules.path_text(name.path)
    fault = letters.fault_of_name(text.rpartition("/")[2])
    if len(name.path) > letters.MAX_PATH_BYTES:
        fault = f"has more than {letters.MAX_PATH_BYTES} bytes with its folders"
    if fault and not reader.at(base, name.path):
        raise BundleRefused(f"the new name {text!r} {fault}. Give it another name, in every commit")
    _check_twin(reader, base, name)


def check_twins(reader: Reader, before: str, after: str) -> None:
    """Judge the new names of a tree only by the names beside them.

    Raises:
        BundleRefused: one could be taken for another.
    """
    for name in changes.compare(reader, before, after).names:
        _check_twin(reader, before, name)


def _check_twin(reader: Reader, base: str, name: NewName) -> None:
    if name.twin is None or (reader.at(base, name.path) and reader.at(base, name.twin)):
        return
    text, other = rules.path_text(name.path), rules.path_text(name.twin)
    words = f"differs from {other!r} only in case, in its Unicode form or in letters that look alike. Give it another name, in every commit"
    raise BundleRefused(f"the new name {text!r} {words}")


def _check_change(reader: Reader, tree: str, change: Change) -> None:
    text, after = rules.path_text(change.path), change.after
    if after is None:
        return
    if after.mode == SUBMODULE:
        raise BundleRefused(f"{text!r} is a submodule; submodules are not taken from workers. Take it out of the commits")
    if after.mode not in _MODES and (change.before is None or change.before.mode != after.mode):
        raise BundleRefused(
            f"{text!r} has the mode {after.mode.decode(errors='replace')}; taken are 100644 and 100755. Commit it again with plain git"
        )
    if after.mode == LINK:
        if reader.size(after.id) > _MAX_LINK_BYTES:
            raise BundleRefused(f"the symbolic link {text!r} is longer than {_MAX_LINK_BYTES} bytes")
        target = reader.content("blob", after.id, _MAX_LINK_BYTES)
        rules.check_link(text, target)
        if fault := letters.fault_of_text(rules.path_text(target)):
            raise BundleRefused(f"the target of the symbolic link {text!r} {fault}")
        _check_way(reader, tree, change.path, target)


def _check_way(reader: Reader, tree: str, path: bytes, target: bytes) -> None:
    """Follow a link that stays in the tree by its text: no link on its way, or at its end, may leave the tree (the base can hold one)."""
    at = path.split(b"/")[:-1]
    for part in target.split(b"/"):
        if part in (b"", b"."):
            continue
        at = at[:-1] if part == b".." else [*at, part]
        met = reader.at(tree, b"/".join(at)) if at else None
        if met and met.mode == LINK:
            rules.check_link(rules.path_text(b"/".join(at)), reader.content("blob", met.id, _MAX_LINK_BYTES))


def _check_sizes(reader: Reader, handin: HandIn, brought: list[Change]) -> None:
    total, seen = 0, set()
    for change in brought:
        after = change.after
        if after is None or after.id in seen or after.id not in handin.own:
            continue  # gone, counted, or in the mirror since before
        seen.add(after.id)
        size = reader.size(after.id)
        total += size
        text = rules.path_text(change.path)
        if size > rules.MAX_BLOB_BYTES:
            raise BundleRefused(
                f"{text!r} has {size} bytes; at most {rules.MAX_BLOB_BYTES} are taken for a file. Take it out of every commit"
            )
        if size > rules.MAX_BINARY_BYTES and b"\0" in reader.content("blob", after.id, rules.MAX_BLOB_BYTES)[:_LOOKED_AT]:
            words = f"at most {rules.MAX_BINARY_BYTES} are taken for a file that no person can read. Take it out of every commit"
            raise BundleRefused(f"the binary file {text!r} has {size} bytes; {words}")
    if total > rules.MAX_TOTAL_BYTES:
        raise BundleRefused(
            f"all new files together have {total} bytes; at most {rules.MAX_TOTAL_BYTES} are taken. Hand in a smaller change"
        )
