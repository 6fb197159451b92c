"""The quarantine: a worker's bundle is read without git first, unpacked apart, judged, and only then taken into the mirror.

``git fetch <bundle>`` would let in what fsck must refuse (measured with git 2.39.5), so git never sees the bundle as a bundle.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from include import inert
from include.errors import BundleRefused, GitFailed
from include.repository import git, inspection, objects, packs, rules, trees

STALE_S = 3600
"""Seconds after which a quarantine is a leftover. Each git call on one ends within a minute."""


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
        with _apart(mirror) as (folder, environment):
            own = _unpack(mirror, file, header, environment)
            _check(mirror, (base_commit, header.tip), own, environment)
            _pack_again(mirror, folder, (base_commit, header.tip), environment)
            _take_in(mirror, folder)
    if not trees.move_ref(mirror, ref, header.tip, trees.ZERO):
        return _the_same(trees.resolve(mirror, ref), header.tip, ref)
    return header.tip


def twin(mirror: Path, before: str, after: str) -> str | None:
    """Find a new name of ``after`` that could be taken for one that others brought, and say so; None: there is none.

    Each of two hand-ins may be fine alone, and both together hold ``a.py`` and ``A.py``.
    """
    ends = (trees.tree_of(mirror, before), trees.tree_of(mirror, after))
    try:
        with objects.reading(mirror, _bounded({})) as reader:
            inspection.check_twins(reader, *ends)
    except BundleRefused as refused:
        return str(refused)
    return None


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
    folder = Path(tempfile.mkdtemp(prefix="quarantine-", dir=mirror / "objects"))
    apart = {
        "GIT_OBJECT_DIRECTORY": str(folder),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(mirror / "objects"),
        "GIT_QUARANTINE_PATH": str(folder),
    }
    try:
        yield folder, apart
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bounded(environment: dict[str, str]) -> git.How:
    return git.How(environment, timeout_s=60, limited=True)


def _unpack(mirror: Path, file: IO[bytes], header: rules.Header, environment: dict[str, str]) -> frozenset[str]:
    """Let git unpack what was measured before; returns the ids of the objects that the bundle brought."""
    number = packs.measure(file.fileno(), header.length)
    file.seek(header.length)
    asked = ["index-pack", "--stdin", "--fix-thin", "--strict", "--threads=1", f"--max-input-size={rules.MAX_BUNDLE_BYTES}"]
    try:
        name = git.run(asked, mirror, _bounded(environment), stdin=file).split()[-1].decode()
        with (Path(environment["GIT_OBJECT_DIRECTORY"]) / "pack" / f"pack-{name}.idx").open("rb") as index:
            listed = git.run(["show-index"], mirror, _bounded(environment), stdin=index)
    except (GitFailed, OSError) as error:
        said = inert.words(str(error))
        raise BundleRefused(f"git's own check refuses the pack, or it is too large to unpack: {said}") from error
    rows = sorted((int(line.split()[0]), line.split()[1].decode()) for line in listed.splitlines())
    return frozenset(name for _, name in rows[:number])  # after them stand those of the mirror that git added to complete a thin pack


def _check(mirror: Path, ends: tuple[str, str], own: frozenset[str], environment: dict[str, str]) -> None:
    base, tip = ends
    handin = inspection.HandIn(base, trees.tree_of(mirror, base), tip, own, time.time())
    try:
        with objects.reading(mirror, _bounded(environment)) as reader:
            inspection.inspect(reader, handin)
        git.run(["rev-list", "--objects", "--quiet", tip, "--not", "--all"], mirror, _bounded(environment))  # each object is there
    except GitFailed as error:
        raise BundleRefused(f"the bundle is not complete: {error}") from error


def _pack_again(mirror: Path, folder: Path, ends: tuple[str, str], environment: dict[str, str]) -> None:
    """Write a pack of our own with what was judged and no more, in short chains of deltas: what else a bundle holds is not kept."""
    wanted = f"{ends[1]}\n^{ends[0]}\n".encode()
    asked = ["pack-objects", "--revs", "--quiet", "--non-empty", "--window=0", "--depth=50", "--threads=1", str(folder / "pack-judged")]
    try:
        git.run(asked, mirror, _bounded(environment), stdin=wanted)
    except GitFailed as error:
        raise BundleRefused(f"the bundle is too large, or too deeply nested, to be packed again: {error}") from error


def _take_in(mirror: Path, folder: Path) -> None:
    pack = mirror / "objects" / "pack"
    pack.mkdir(exist_ok=True)
    for suffix in (".pack", ".rev", ".idx"):  # the index last: a pack without one does not exist for git
        for file in sorted(folder.glob(f"pack-judged-*{suffix}")):
            os.replace(file, pack / file.name.replace("-judged", ""))
    descriptor = os.open(pack, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
