"""The quarantine: a worker's bundle is read without git first, unpacked apart, judged, and only then taken into the mirror.

``git fetch <bundle>`` would let in what fsck must refuse (measured with git 2.39.5), so git never sees the bundle as a bundle.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from include.errors import BundleRefused, GitFailed
from include.repository import git, rules, trees

STALE_S = 3600
"""Seconds after which a quarantine is a leftover. Each git call on one ends within a minute."""
_RAW = (
    "diff-tree", "-r", "-z", "--raw", "--root", "-m", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--no-commit-id",
)  # fmt: skip


def accept(mirror: Path, handin: Path, base_commit: str, task_run: str, epoch: int) -> str:
    """Take a worker's bundle into the mirror as ``refs/tasks/<task run>/<epoch>``; a second call recognises the first.

    Args:
        handin: the file that the warden copied out of the sandbox.
        base_commit: the commit that the attempt started from.

    Returns:
        The worker's commit.

    Raises:
        BundleRefused: what was found; nothing of the bundle is kept.
        GitFailed: the mirror cannot be read or written.
    """
    ref = f"refs/tasks/{task_run}/{epoch}"
    with _open(handin) as file:
        header = rules.bundle_header(file.read(rules.MAX_HEADER_BYTES))
        before = trees.find(mirror, ref)
        if before is not None:
            return _the_same(before, header.tip, ref)
        _check_prerequisites(mirror, header, base_commit)
        file.seek(header.length)
        with _apart(mirror) as (objects, environment):
            _unpack(mirror, file, environment)
            _check(mirror, header.tip, base_commit, environment)
            _take_in(mirror, objects)
    if not trees.move_ref(mirror, ref, header.tip, trees.ZERO):
        return _the_same(trees.resolve(mirror, ref), header.tip, ref)
    return header.tip


def clear_leftovers(mirror: Path) -> int:
    """Remove quarantines that a killed process left: a living one is done within minutes. Returns how many there were."""
    left = [folder for folder in (mirror / "objects").glob("quarantine-*") if time.time() - folder.stat().st_mtime > STALE_S]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return len(left)


def _the_same(before: str, tip: str, ref: str) -> str:
    if before != tip:
        raise BundleRefused(f"{ref} was handed in before as {before[:12]}; an attempt hands in once")
    return before


@contextmanager
def _open(handin: Path) -> Iterator[IO[bytes]]:
    try:
        descriptor = os.open(handin, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BundleRefused(f"the hand-in cannot be opened: {error.strerror}") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise BundleRefused("the hand-in is not a regular file")
        if found.st_size > rules.MAX_BUNDLE_BYTES:
            raise BundleRefused(f"the bundle has {found.st_size} bytes; at most {rules.MAX_BUNDLE_BYTES} are taken")
        yield file


def _check_prerequisites(mirror: Path, header: rules.Header, base_commit: str) -> None:
    for commit in header.prerequisites:
        try:
            known = trees.is_ancestor(mirror, commit, base_commit)
        except GitFailed:
            known = False
        if not known:
            raise BundleRefused(f"the bundle builds on {commit[:12]}, which is not in the history of its base {base_commit[:12]}")


@contextmanager
def _apart(mirror: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    clear_leftovers(mirror)
    objects = Path(tempfile.mkdtemp(prefix="quarantine-", dir=mirror / "objects"))
    apart = {
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(mirror / "objects"),
        "GIT_QUARANTINE_PATH": str(objects),
    }
    try:
        yield objects, apart
    finally:
        shutil.rmtree(objects, ignore_errors=True)


def _bounded(environment: dict[str, str]) -> git.How:
    return git.How(environment, timeout_s=60, limited=True)


def _unpack(mirror: Path, file: IO[bytes], environment: dict[str, str]) -> None:
    asked = ["index-pack", "--stdin", "--fix-thin", "--strict", "--threads=1", f"--max-input-size={rules.MAX_BUNDLE_BYTES}"]
    try:
        git.run(asked, mirror, _bounded(environment), stdin=file)
    except GitFailed as error:
        raise BundleRefused(f"git's own check refuses the pack, or it is too large to unpack: {error}") from error


def _check(mirror: Path, tip: str, base: str, environment: dict[str, str]) -> None:
    def ask(*args: str, stdin: bytes = b"") -> bytes:
        return git.run(args, mirror, _bounded(environment), stdin=stdin)

    try:
        if ask("cat-file", "-t", tip) != b"commit\n":
            raise BundleRefused("the tip is not a commit")
        ask("rev-list", "--objects", "--quiet", tip, "--not", "--all")  # each object that it names is there
        ask("merge-base", tip, base)
        commits = ask("rev-list", tip, "--not", base)
        objects = ask("rev-list", "--objects", "--no-object-names", tip, "--not", base)
        _check_sizes(ask("cat-file", "--batch-check=%(objecttype) %(objectsize)", stdin=objects))
        _check_changes(ask("diff-tree", "-r", "-z", "--raw", "--no-renames", "--full-index", base, tip), count=True)
        raw = ask(*_RAW, "--stdin", stdin=commits)  # each commit of the history, not only the sum: all of it would be merged
        _check_changes(raw, count=False)
        _check_links(ask, raw)
    except GitFailed as error:
        raise BundleRefused(f"the bundle is not complete, or shares no history with its base: {error}") from error


def _check_sizes(lines: bytes) -> None:
    sizes = [int(line.split(b" ")[1]) for line in lines.splitlines()]
    if max(sizes, default=0) > rules.MAX_BLOB_BYTES:
        raise BundleRefused(f"a file has {max(sizes)} bytes; at most {rules.MAX_BLOB_BYTES} are taken")
    if sum(sizes) > rules.MAX_TOTAL_BYTES:
        raise BundleRefused(f"all files together have {sum(sizes)} bytes; at most {rules.MAX_TOTAL_BYTES} are taken")


def _check_changes(raw: bytes, count: bool) -> None:
    for path in raw.split(b"\0")[1::2]:
        rules.check_path(path)
    changes = rules.raw_changes(raw)
    if count and len(changes) > rules.MAX_FILES:
        raise BundleRefused(f"{len(changes)} files are changed; at most {rules.MAX_FILES} are taken")
    for change in changes:
        rules.check_mode(change)


def _check_links(ask: Callable[..., bytes], raw: bytes) -> None:
    for change in rules.raw_changes(raw):
        if rules.is_symlink(change):
            rules.check_link(change.path, ask("cat-file", "blob", change.blob))


def _take_in(mirror: Path, objects: Path) -> None:
    pack = mirror / "objects" / "pack"
    pack.mkdir(exist_ok=True)
    for suffix in (".pack", ".rev", ".idx"):  # the index last: a pack without one does not exist for git
        for file in sorted((objects / "pack").glob(f"*{suffix}")):
            os.replace(file, pack / file.name)
    descriptor = os.open(pack, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
