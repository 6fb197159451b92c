"""The quarantine refuses every bundle that should not come in, keeps nothing of it, and takes the good one."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from include.errors import BundleRefused
from include.repository import quarantine, trees
from tests.repository.people import Repo
from tests.repository.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


Evil = Callable[[World], Path]


def _files(files: dict[str, str]) -> Evil:
    def make(world: World) -> Path:
        world.worker.commit(files)
        return world.bundle()

    return make


def _entry(mode: str, name: bytes, content: bytes = b"x") -> Evil:
    return lambda world: world.evil((mode, name, world.worker.blob(content)))


def _inside(folder: bytes, name: bytes) -> Evil:
    return lambda world: world.evil(("40000", folder, world.tree(("100755", name, world.worker.blob(b"#!/bin/sh\n")))))


def _twice(world: World) -> Path:
    blob = world.worker.blob(b"x")
    return world.evil(("100644", b"b", blob), ("100644", b"b", blob))


def _two_refs(world: World) -> Path:
    world.worker.commit({"b": "b"})
    world.worker.git("branch", "more")
    world.worker.git("bundle", "create", "--quiet", str(world.folder / "handin"), "airlock-base..task", "airlock-base..more")
    return world.folder / "handin"


def _wrong_ref(world: World) -> Path:
    world.worker.commit({"b": "b"})
    world.worker.git("branch", "main")
    world.worker.git("bundle", "create", "--quiet", str(world.folder / "handin"), "airlock-base..main")
    return world.folder / "handin"


def _unknown_prerequisite(world: World) -> Path:
    first = world.worker.commit({"b": "b"})
    world.worker.commit({"c": "c"})
    world.worker.git("bundle", "create", "--quiet", str(world.folder / "handin"), f"{first}..task")
    return world.folder / "handin"


def _unrelated(world: World) -> Path:
    world.worker.git("checkout", "--quiet", "--orphan", "other")
    world.worker.commit({"b": "b"})
    world.worker.git("branch", "--force", "task", "other")
    world.worker.git("bundle", "create", "--quiet", str(world.folder / "handin"), "task")
    return world.folder / "handin"


def _tip_is_a_tree(world: World) -> Path:
    _files({"b": "b"})(world)
    return _with_tip(world, world.worker.git("rev-parse", "task^{tree}"))


def _tip_is_missing(world: World) -> Path:
    _files({"b": "b"})(world)
    return _with_tip(world, "1" * 40)


def _with_tip(world: World, tip: str) -> Path:
    handin = world.folder / "handin"
    handin.write_bytes(handin.read_bytes().replace(world.worker.tip("task").encode(), tip.encode(), 1))
    return handin


def _pack_of(world: World, *objects: str) -> Path:
    """A bundle whose pack holds only some of what its tip names."""
    _files({"sub/b": "b"})(world)
    names = "\n".join(world.worker.git("rev-parse", name) for name in objects).encode()
    packed = subprocess.run(["git", "pack-objects", "--stdout", "-q"], cwd=world.worker.path, input=names, capture_output=True, check=True)
    head = f"# v2 git bundle\n-{world.base}\n{world.worker.tip('task')} refs/heads/task\n\n"
    (world.folder / "handin").write_bytes(head.encode() + packed.stdout)
    return world.folder / "handin"


def _cut(world: World) -> Path:
    handin = _files({"b": "b" * 5000})(world)
    handin.write_bytes(handin.read_bytes()[:-30])
    return handin


def _flipped(world: World) -> Path:
    handin = _files({"b": os.urandom(3000).hex()})(world)
    data = bytearray(handin.read_bytes())
    data[-100] ^= 1
    handin.write_bytes(data)
    return handin


def _version_3(world: World) -> Path:
    handin = _files({"b": "b"})(world)
    handin.write_bytes(handin.read_bytes().replace(b"# v2 git bundle\n", b"# v3 git bundle\n@object-format=sha1\n", 1))
    return handin


def _endless_header(world: World) -> Path:
    handin = world.folder / "handin"
    handin.write_bytes(b"# v2 git bundle\n" + b"-" + b"0" * 40 + b" " + b"x" * 200_000)
    return handin


def _is_a_link(world: World) -> Path:
    good = _files({"b": "b"})(world)
    (world.folder / "link").symlink_to(good)
    return world.folder / "link"


def _is_a_pipe(world: World) -> Path:
    os.mkfifo(world.folder / "pipe")
    return world.folder / "pipe"


def _hidden_in_history(world: World) -> Path:
    world.worker.commit({".github/workflows/ci.yml": "on: push\n"})
    world.worker.git("rm", "-rq", ".github")
    return _files({"b": "b"})(world)


def _submodule(world: World) -> Path:
    return world.evil(("160000", b"sub", world.base))


FSCK = {
    "hook in .git": _inside(b".git", b"hooks"),
    "entry ..": _inside(b"..", b"x"),
    "gitmodules that runs": _entry("100644", b".gitmodules", b'[submodule "a"]\n\tpath = a\n\turl = -u./payload\n'),
    "git~1": _inside(b"git~1", b"x"),
    "same entry twice": _twice,
}  # fmt: skip
POLICY = {
    "submodule": _submodule,
    "link to /": _entry("120000", b"b", b"/etc/passwd"),
    "link to ..": _entry("120000", b"b", b"../../secret"),
    "link by way of another": _entry("120000", b"b", b"docs/../../x"),
    "link into .git": _entry("120000", b"b", b".git/config"),
    "workflow": _files({".github/workflows/ci.yml": "on: push\n"}),
    "attributes": _files({"docs/.gitattributes": "* filter=x\n"}),
    "attributes in capitals": _files({".GitAttributes": "* filter=x\n"}),
    "attributes with an invisible letter": _files({".git\u200dattributes": "x"}),
    "Jenkinsfile": _files({"Jenkinsfile": "x"}),
    "control character": _files({"b\x1b[31m": "x"}),
    "line feed": _files({"b\nc": "x"}),
    "not UTF-8": _entry("100644", b"b\xff"),
    "large file": lambda world: _files({"b": "0" * (5 * 1024 * 1024 + 1)})(world),
    "bomb of zeros": lambda world: _files({"b": "\0" * (40 * 1024 * 1024)})(world),
    "large sum": lambda world: _files({f"b{letter}": letter * 5_000_000 for letter in "abcdefghijk"})(world),
    "too many files": lambda world: _files({f"d/{number}": str(number) for number in range(2001)})(world),
    "workflow in an inner commit": _hidden_in_history,
}  # fmt: skip
FORM = {
    "two refs": _two_refs,
    "wrong ref": _wrong_ref,
    "unknown prerequisite": _unknown_prerequisite,
    "unrelated history": _unrelated,
    "tip is a tree": _tip_is_a_tree,
    "tip is missing": _tip_is_missing,
    "blob is missing": lambda world: _pack_of(world, "task", "task^{tree}", "task:sub"),
    "tree is missing": lambda world: _pack_of(world, "task", "task:sub/b"),
    "cut": _cut,
    "one bit": _flipped,
    "version 3": _version_3,
    "endless header": _endless_header,
    "symbolic link": _is_a_link,
    "pipe": _is_a_pipe,
    "not there": lambda world: world.folder / "nothing",
    "empty": lambda world: ((world.folder / "handin").write_bytes(b"") and None) or world.folder / "handin",
}  # fmt: skip


SAYS = dict.fromkeys(FSCK, "git's own check refuses") | {
    "submodule": "is a submodule",
    "link to /": "points out of the tree",
    "link to ..": "points out of the tree",
    "link by way of another": "points out of the tree",
    "link into .git": "points out of the tree",
    "workflow": "is protected",
    "attributes": "is protected",
    "attributes in capitals": "is protected",
    "attributes with an invisible letter": "is protected",
    "Jenkinsfile": "is protected",
    "control character": "control character",
    "line feed": "control character",
    "not UTF-8": "not UTF-8",
    "large file": "'b' has 5242881 bytes; at most 5242880 are taken",
    "bomb of zeros": "'b' has 41943040 bytes; at most 5242880 are taken",
    "large sum": "all new files together have 55",
    "too many files": "2001 files are changed",
    "workflow in an inner commit": "is protected",
    "two refs": "exactly one ref",
    "wrong ref": "instead of refs/heads/task",
    "unknown prerequisite": "not in the history of its base",
    "unrelated history": "shares no history",
    "tip is a tree": "not a commit",
    "tip is missing": "is not complete",
    "blob is missing": "did not receive expected object",
    "tree is missing": "did not receive expected object",
    "cut": "the pack breaks off",
    "one bit": "the pack is damaged",
    "version 3": "not a git bundle of version 2",
    "endless header": "not a git bundle of version 2",
    "symbolic link": "cannot be opened",
    "pipe": "not a regular file",
    "not there": "cannot be opened",
    "empty": "not a git bundle of version 2",
}


LARGE = {"large sum", "bomb of zeros", "too many files"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in (*FSCK, *POLICY, *FORM)]
)
def test_evil_bundle_is_refused_and_nothing_of_it_is_kept(world: World, name: str) -> None:
    handin = (FSCK | POLICY | FORM)[name](world)
    before = _listing(world.mirror)
    with pytest.raises(BundleRefused) as refusal:
        world.accept(handin)
    assert SAYS[name] in str(refusal.value)
    assert _listing(world.mirror) == before
    Repo(world.mirror).git("fsck", "--strict")


@pytest.mark.parametrize("name", [*FSCK, "link to /", "workflow", "bomb of zeros"])
def test_control_plain_fetch_lets_the_same_bundle_in(world: World, name: str) -> None:
    handin = (FSCK | POLICY)[name](world)
    Repo(world.mirror).git(
        "-c", "fetch.fsckObjects=true", "-c", "transfer.fsckObjects=true", "fetch", "-q", str(handin), "refs/heads/task:refs/evil"
    )
    assert trees.find(world.mirror, "refs/evil")


def test_good_bundle_comes_in_once(world: World) -> None:
    world.worker.commit({"b.py": "B = 2\n", ".gitignore": "*.pyc\n", "docs/kept/.gitkeep": ""})
    (world.worker.path / "docs/link").symlink_to("../a.py")
    tip = world.worker.commit({"c.py": "C = 3\n"})
    assert world.accept(world.bundle()) == tip
    assert trees.resolve(world.mirror, "refs/tasks/g1-a/1") == tip
    assert world.accept(world.bundle()) == tip
    assert not list((world.mirror / "objects").glob("quarantine-*"))
    Repo(world.mirror).git("fsck", "--strict")


def test_another_bundle_of_the_same_attempt_is_refused(world: World) -> None:
    world.worker.commit({"b.py": "B = 2\n"})
    world.accept(world.bundle())
    world.worker.commit({"b.py": "B = 3\n"})
    with pytest.raises(BundleRefused, match="handed in before"):
        world.accept(world.bundle())


def test_a_quarantine_that_a_kill_left_is_cleared(world: World) -> None:
    for name, age in (("dead", 2 * quarantine.STALE_S), ("alive", 60)):
        folder = world.mirror / "objects" / f"quarantine-{name}"
        folder.mkdir()
        os.utime(folder, (time.time() - age, time.time() - age))
    world.worker.commit({"b.py": "B = 2\n"})
    world.accept(world.bundle())
    assert [folder.name for folder in (world.mirror / "objects").glob("quarantine-*")] == ["quarantine-alive"]


def _listing(mirror: Path) -> list[str]:
    refs = Repo(mirror).git("for-each-ref")
    return [refs, *sorted(str(path) for path in mirror.rglob("*"))]
