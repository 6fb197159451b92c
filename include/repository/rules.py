"""What git prints and what a bundle's header says, read strictly; and which paths a worker may not touch. Pure."""

from __future__ import annotations

import re
import unicodedata
from itertools import pairwise
from typing import Literal, NamedTuple

from include.errors import BundleRefused

MAX_FILES = 2_000
MAX_BLOB_BYTES = 5 * 1024 * 1024
MAX_BINARY_BYTES = 1024 * 1024
"""A file that a diff cannot show: an icon, a small table. Nobody can judge a larger one by reading."""
MAX_TOTAL_BYTES = 50 * 1024 * 1024
MAX_BUNDLE_BYTES = 64 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
MAX_PREREQUISITES = 16
"""Commits that a bundle says it builds on; git is asked for each. A line of commits has one: its base."""
BRANCH = "refs/heads/task"

Action = Literal["created", "modified", "deleted"]
_ACTIONS: dict[str, Action] = {"A": "created", "D": "deleted"}
_SHORT = re.compile(r"git?[0-9a-z]{0,4}~\d")  # what Windows calls .git, .gitmodules and the like besides: git~1, gitmod~1, gi7eba~1
_HARMLESS = frozenset({".gitignore", ".gitkeep"})
_PROTECTED = frozenset({
    ".circleci", ".travis.yml", ".drone.yml", ".woodpecker", ".woodpecker.yml", ".buildkite", "azure-pipelines.yml",
    "bitbucket-pipelines.yml", "jenkinsfile",
})  # fmt: skip
_HEADER = re.compile(rb"# v2 git bundle\n((?:-[0-9a-f]{40}(?: [^\n]*)?\n)*)([0-9a-f]{40}) ([^\n]+)\n\n")


class Header(NamedTuple):
    """The head of a bundle: its one tip, what it builds on, and where the pack begins."""

    tip: str
    prerequisites: tuple[str, ...]
    length: int


class RawChange(NamedTuple):
    """One line of a raw diff."""

    path: str
    action: Action
    mode: str
    blob: str


def bundle_header(start: bytes) -> Header:
    """Read the head of a version 2 bundle.

    Args:
        start: the first ``MAX_HEADER_BYTES`` of the file.

    Raises:
        BundleRefused: it is anything else than one ref ``refs/heads/task`` on top of prerequisites.
    """
    found = _HEADER.match(start)
    if found is None:
        raise BundleRefused("the hand-in is not a git bundle of version 2 with exactly one ref")
    if found[3] != BRANCH.encode():
        raise BundleRefused(f"the bundle brings {found[3][:100].decode(errors='replace')!r} instead of {BRANCH}")
    builds_on = tuple(line[1:41].decode() for line in found[1].split(b"\n")[:-1])  # a comment may hold other ends of lines
    if len(builds_on) > MAX_PREREQUISITES:
        raise BundleRefused(f"the bundle builds on {len(builds_on)} commits; at most {MAX_PREREQUISITES} are taken")
    return Header(found[2].decode(), builds_on, found.end())


def raw_changes(out: bytes) -> list[RawChange]:
    """Read ``diff-tree --raw -z --no-renames --full-index``."""
    records = out.split(b"\0")
    found = []
    for head, path in zip(records[::2], records[1::2], strict=False):
        _, mode, _, blob, status = head.decode().split(" ")
        found.append(RawChange(_text(path), _ACTIONS.get(status[0], "modified"), mode, blob))
    return found


def numstat(out: bytes) -> dict[str, tuple[int, int]]:
    """Read ``diff-tree --numstat -z``: path to added and deleted lines; a binary file counts 0."""
    rows = (record.split(b"\t", 2) for record in out.split(b"\0") if record)
    return {_text(path): (int(added) if added != b"-" else 0, int(gone) if gone != b"-" else 0) for added, gone, path in rows}


def patches(out: bytes, longest: int) -> list[str]:
    """Cut ``diff-tree --patch`` into the patch of each file, in git's order, each capped at ``longest`` characters."""
    text = out.decode("utf-8", errors="replace").replace("\0", "\ufffd")
    starts = [found.start() for found in re.finditer(r"^diff --git ", text, re.MULTILINE)]
    parts = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    return [part if len(part) <= longest else part[:longest] + "\n(cut)\n" for part in parts]


def _text(path: bytes) -> str:
    return path.decode("utf-8", errors="replace").replace("\0", "\ufffd")


def path_text(path: bytes) -> str:
    """Read a path.

    Raises:
        BundleRefused: it is not UTF-8.
    """
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        raise BundleRefused(f"the path {path!r} is not UTF-8") from None


def check_path(path: bytes) -> None:
    """Refuse a path that no worker may change, new or not.

    Raises:
        BundleRefused: it is not UTF-8, or it is protected.
    """
    text = path_text(path)
    for part in text.split("/"):
        if _is_protected(part):
            raise BundleRefused(f"{text!r} is protected: a worker may not change git's, GitHub's or CI's own files")


def _is_protected(part: str) -> bool:
    # As file systems that fold case and drop invisible letters, trailing dots and spaces would read it.
    folded = (
        "".join(letter for letter in unicodedata.normalize("NFKC", part) if unicodedata.category(letter) != "Cf").casefold().rstrip(". ")
    )
    if part in _HARMLESS:
        return False
    return folded.startswith(".git") or bool(_SHORT.match(folded)) or folded in _PROTECTED or folded in ("", ".", "..")


def check_link(path: str, target: bytes) -> None:
    """Refuse a symbolic link that leaves the tree, by its text alone: ``..`` only at the start, and not above the root.

    Raises:
        BundleRefused: it leaves the tree, or could by way of another link.
    """
    parts = target.split(b"/")
    up = next((number for number, part in enumerate(parts) if part != b".."), len(parts))
    leaves = target.startswith(b"/") or up > path.count("/") or b".." in parts[up:]
    if leaves or not target:
        raise BundleRefused(
            f"the symbolic link {path!r} points out of the tree, to {target[:200]!r}. Copy the file, or link inside the tree"
        )
    for part in path_text(target).split("/"):
        if part not in ("", ".", "..") and _is_protected(part):
            raise BundleRefused(f"the symbolic link {path!r} points out of the tree or to git's own files, to {target[:200]!r}")
