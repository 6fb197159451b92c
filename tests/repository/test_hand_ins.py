"""A hand-in brings one line of commits with plain names, modes, messages and bounded files; what honest work brings comes in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from include.errors import BundleRefused
from include.repository import inspection, quarantine, trees
from tests.repository.people import Repo
from tests.repository.world import BLOB, COMMIT, TREE, World, commit, oid, tree

pytestmark = pytest.mark.slow

Make = Callable[[World], Path]
_X = oid(BLOB, b"x")


def _rows(world: World, *rows: tuple[bytes, bytes, str]) -> bytes:
    """The base's tree with more in it."""
    found = world.worker.git("ls-tree", "HEAD").splitlines()
    base = [(line.split()[0].lstrip("0").encode(), line.split("\t")[1].encode(), line.split()[2]) for line in found]
    return tree(*base, *rows)


def _named(name: str, mode: bytes = b"100644", content: bytes = b"x") -> Make:
    def make(world: World) -> Path:
        whole = _rows(world, (mode, name.encode(), oid(BLOB, content)))
        made = commit(oid(TREE, whole), world.base)
        return world.packed(oid(COMMIT, made), (BLOB, content), (TREE, whole), (COMMIT, made))

    return make


def _said(message: bytes = b"work\n", who: bytes = b"W <w@x> 1700000000 +0000", more: bytes = b"") -> Make:
    def make(world: World) -> Path:
        whole = _rows(world, (b"100644", b"b.py", _X))
        made = commit(oid(TREE, whole), world.base, message=message, who=who).replace(b"\n\n", b"\n" + more + b"\n", 1)
        return world.packed(oid(COMMIT, made), (BLOB, b"x"), (TREE, whole), (COMMIT, made))

    return make


def _parents(bring: Callable[[World], tuple[list[bytes], list[str]]]) -> Make:
    def make(world: World) -> Path:
        whole = _rows(world, (b"100644", b"b.py", _X))
        others, parents = bring(world)
        made = commit(oid(TREE, whole), *parents)
        more = [(COMMIT, other) for other in others]
        return world.packed(oid(COMMIT, made), (BLOB, b"x"), (TREE, whole), *more, (COMMIT, made))

    return make


def _unrelated_root(world: World) -> tuple[list[bytes], list[str]]:
    root = commit(oid(TREE, _rows(world, (b"100644", b"b.py", _X))))
    return [root], [world.base, oid(COMMIT, root)]


def _merge_of_own(world: World) -> tuple[list[bytes], list[str]]:
    side = commit(oid(TREE, _rows(world, (b"100644", b"b.py", _X))), world.base)
    return [side], [world.base, oid(COMMIT, side)]


def _twin_in_two_commits(world: World) -> Path:
    world.worker.commit({"src/New.py": "1"})
    world.worker.commit({"src/new.py": "2"})
    return world.bundle()


def _hidden_and_gone(world: World) -> Path:
    world.worker.commit({"b\u202epy.txt": "x"})
    world.worker.git("rm", "-q", "b\u202epy.txt")
    world.worker.commit({"c.py": "C = 3\n"})
    return world.bundle()


def _files(files: dict[str, str]) -> Make:
    def make(world: World) -> Path:
        world.worker.commit(files)
        return world.bundle()

    return make


REFUSED: dict[str, tuple[Make, str]] = {
    "case twin": (_named("A.py"), "differs from 'a.py' only in case"),
    "case twin of a folder": (_files({"Docs/b.md": "x"}), "differs from 'docs' only in case"),
    "twins in two commits": (_twin_in_two_commits, "differs from 'src/New.py' only in case"),
    "both twins new": (_files({"b.py": "1", "B.py": "2"}), "only in case"),
    "NFD": (_named("e\u0301.py"), "not in the normal form NFC"),
    "wide letter": (_named("ａ.py"), "differs from 'a.py' only in case"),
    "look-alike twin": (_named("а.py"), "differs from 'a.py' only in case"),
    "look-alike in a word": (_named("pаyload.py"), "mixes alphabets in 'pаyload'"),
    "looks like a slash": (_named("docs\u2215b.md"), "looks like a slash or a dot"),
    "right to left": (_named("b\u202epy.txt"), "U+202E"),
    "right to left, gone again": (_hidden_and_gone, "U+202E"),
    "no width": (_named("b\u200b.py"), "U+200B"),
    "Hangul filler": (_named("b\u3164.py"), "U+3164"),
    "no-break space": (_named("b\u00a0c.py"), "U+00A0"),
    "tag": (_named("b\U000e0041.py"), "U+E0041"),
    "escape": (_named("b\x1b[31m"), "a control character, U+001B"),
    "device": (_named("aux.py"), "a device on Windows"),
    "device with a port": (_named("COM1"), "a device on Windows"),
    "colon": (_named("a.py:evil"), "Windows does not hold"),
    "backslash": (_named("docs\\b.md"), "Windows does not hold"),
    "dot at the end": (_named("b."), "Windows drops"),
    "long name": (_named("b" * 256), "more than 255 bytes"),
    "long path": (_files({"/".join(["d" * 200] * 6): "x"}), "more than 1000 bytes"),
    ".git for macOS": (_named(".g\u200cit"), "hasDotgit"),
    ".gitmodules for Windows": (_named("GITMOD~1"), "is protected"),
    ".gitattributes for Windows": (_named("gi7d29~1"), "is protected"),
    "mode 100664": (_named("b.py", b"100664"), "has the mode 100664"),
    "mode 100600": (_named("b.py", b"100600"), "has the mode 100600"),
    "set-uid": (_named("b.py", b"104755"), "has the mode 104755"),
    "gitlink": (lambda world: world.evil(("160000", b"sub", world.base)), "is a submodule"),
    "link to git's own": (_named("b", b"120000", b"docs/.GIT/config"), "git's own files"),
    "link to git's own for Windows": (_named("b", b"120000", b"GIT~1/config"), "git's own files"),
    "link with an unseen letter": (_named("b", b"120000", b"docs/\xe2\x80\x8bx"), "holds U+200B"),
    "unrelated root as second parent": (_parents(_unrelated_root), "has 2 parents"),
    "merge": (_parents(_merge_of_own), "has 2 parents"),
    "the same parent twice": (_parents(lambda world: ([], [world.base, world.base])), "has 2 parents"),
    "date before git": (_said(who=b"W <w@x> 1 +0000"), "has the date 1 +0000"),
    "date in the far future": (_said(who=b"W <w@x> 99999999999 +0000"), "has the date 99999999999"),
    "absurd zone": (_said(who=b"W <w@x> 1700000000 +9900"), "has the date 1700000000 +9900"),
    "escape in a message": (_said(b"work\x1b]0;title\x07\n"), "U+001B"),
    "right to left in a message": (_said("work \u202egnp.exe\n".encode()), "U+202E"),
    "carriage return in a message": (_said(b"evil\rgood\n"), "U+000D"),
    "no UTF-8 in a message": (_said(b"w\xf6rk\n"), "is not UTF-8"),
    "escape in an author": (_said(who=b"W\x1b[2J <w@x> 1700000000 +0000"), "U+001B"),
    "a field of its own": (_said(more=b"airlock 1\n"), "fields that are not taken"),
    "long message": (_said(b"x" * 70_000), "at most 65536 are taken"),
    "encoding": (_said(more=b"encoding UTF-7\n"), "fields that are not taken"),
    "large file": (_named("big.txt", content=b"0" * (5 * 1024 * 1024 + 1)), "'big.txt' has 5242881 bytes; at most 5242880"),
    "large binary file": (_named("b.bin", content=b"\0" * (1024 * 1024 + 1)), "binary file 'b.bin' has 1048577 bytes; at most 1048576"),
}  # fmt: skip
BY_GIT = {".git for macOS"}  # git has its say before


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", REFUSED)
def test_what_deceives_is_refused_with_words(world: World, name: str) -> None:
    make, words = REFUSED[name]
    handin = make(world)
    with pytest.raises(BundleRefused) as refusal:
        world.accept(handin)
    assert words in str(refusal.value)
    assert all(letter.isprintable() for letter in str(refusal.value))  # what is refused is not printed raw
    assert trees.find(world.mirror, "refs/tasks/g1-a/1") is None


@pytest.mark.parametrize("name", [name for name in REFUSED if name not in BY_GIT])
def test_control_without_the_inspection_the_same_comes_in(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    handin = REFUSED[name][0](world)
    monkeypatch.setattr(inspection, "inspect", lambda *_: None)
    assert world.accept(handin) == trees.find(world.mirror, "refs/tasks/g1-a/1")


def _odd_base(person: Repo) -> None:
    blob = person.blob(b"x")
    names = ("aux.c", "e\u0301.py", "b\u200b.py", "b.", "B.py", "b.py", "odd:dir/kept")
    for name in names:
        person.git("update-index", "--add", "--cacheinfo", f"100644,{blob},{name}")
    person.git("update-index", "--add", "--cacheinfo", f"120000,{person.blob(b'/usr/share/dict')},words")
    person.git("update-index", "--add", "--cacheinfo", f"160000,{person.tip()},sub")
    person.git("commit", "--quiet", "--message", "odd\x1b names")


def _staged(*changes: str, gone: str = "") -> Make:
    """A commit made in the index, as names that this machine's file system takes or not."""

    def make(world: World) -> Path:
        blob = world.worker.blob(b"changed")
        for change in changes:
            world.worker.git("update-index", "--add", "--cacheinfo", f"{change.split(',')[0]},{blob},{change.split(',')[1]}")
        if gone:
            world.worker.git("update-index", "--force-remove", gone)
        world.worker.git("commit", "--quiet", "--message", "größer 👩\u200d💻\n\n\tindented")
        return world.bundle()

    return make


def _linked(world: World) -> Path:
    (world.worker.path / "docs/link").symlink_to("../a.py")
    return _files({"c.py": "C"})(world)


def _renamed(old: str, new: str) -> Make:
    def make(world: World) -> Path:
        world.worker.git("mv", old, new)
        return _files({})(world)

    return make


HONEST: dict[str, Make] = {
    "rename": _renamed("a.py", "src_a.py"),
    "rename in case only": _renamed("a.py", "A.py"),
    "rename of a folder": _renamed("docs", "texts"),
    "new program": _staged("100755,bin/run"),
    "program no more": _staged("100755,a.py"),
    "NFC": _files({"größe.py": "x", "日本語/説明（草案）.md": "x", "README_по-русски.md": "x", "Δt.md": "x"}),
    "names that only look odd": _files({"con_text.py": "x", "auxiliary.c": "x", "git.py": "x", ".gitignore": "x", "a b.md": "x", "~1": "x"}),
    "link inside the tree": _linked,
    "base's odd names": _staged("100644,aux.c", "100644,e\u0301.py", "100644,b\u200b.py", "100644,b."),
    "base's twins": _staged("100644,B.py", "100644,b.py"),
    "new name in base's odd folder": _staged("100644,odd:dir/new.py"),
    "base's odd name gone": _staged(gone="b\u200b.py"),
    "base's submodule gone": _staged(gone="sub"),
    "binary file": lambda world: _named("b.bin", content=b"\0" * 1_000_000)(world),
    "large text": _named("b.csv", content=b"1,2\n" * 1_000_000),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_work_comes_in(tmp_path: Path, name: str) -> None:
    odd = name.startswith(("base's", "new name in base's"))
    world = World(tmp_path, _odd_base if odd else None)
    tip = world.accept(HONEST[name](world))
    Repo(world.mirror).git("fsck", "--strict", "--no-dangling", tip)
    assert Repo(world.mirror).git("rev-list", "--count", f"{world.base}..{tip}") == "1"


def test_a_link_by_way_of_the_bases_link_leaves_the_tree(tmp_path: Path) -> None:
    world = World(tmp_path, _odd_base)
    (world.worker.path / "docs/more").symlink_to("../words/secret")
    world.worker.git("add", "docs/more")
    world.worker.git("commit", "-qm", "link")
    with pytest.raises(BundleRefused, match="points out of the tree"):
        world.accept(world.bundle())


def test_two_hand_ins_that_are_fine_alone_make_no_twins(world: World) -> None:
    start = world.worker.tip()
    first = world.worker.commit({"New.py": "1"})
    world.accept(world.bundle(), "g1-a")
    world.worker.git("reset", "-q", "--hard", start)
    second = world.worker.commit({"new.py": "2"})
    world.accept(world.bundle(), "g1-b")
    made = trees.merge_in_memory(world.mirror, first, second, "a \x1b[31mred\u202e title", {}, 1_700_000_000)
    words = quarantine.twin(world.mirror, first, made.commit)  # type: ignore[union-attr]
    assert words and "'new.py' differs from 'New.py'" in words
    assert quarantine.twin(world.mirror, start, first) is None  # control: one of them alone is fine
    assert Repo(world.mirror).git("show", "-s", "--format=%B", made.commit) == "a \ufffd[31mred\ufffd title"  # type: ignore[union-attr]


def test_what_a_bundle_holds_besides_is_not_kept(world: World) -> None:
    whole = _rows(world, (b"100644", b"b.py", _X))
    made = commit(oid(TREE, whole), world.base)
    extra = b"smuggled"
    handin = world.packed(oid(COMMIT, made), (BLOB, b"x"), (TREE, whole), (COMMIT, made), (BLOB, extra))
    world.accept(handin)
    listed = Repo(world.mirror).git("cat-file", "--batch-all-objects", "--batch-check")
    assert _X in listed and oid(BLOB, extra) not in listed
