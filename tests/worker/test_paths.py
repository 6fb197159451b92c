"""No path leads a tool out of the work tree or into git's folder: supplied corpora, planted links, a swap race; the seed's guard as control."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from include.worker.errors import ToolRefused
from include.worker.files import Tree, open_beneath
from tests.worker.sandbox import GIT

SECRET = "AIRLOCK-CANARY"


@pytest.fixture
def tree(tmp_path: Path):
    """A work tree task-1 with a sibling task-11, secrets outside, and everything planted that may lead there."""
    for folder in ("task-1", "task-11", "incoming", "outside"):
        (tmp_path / folder).mkdir()
    root = tmp_path / "task-1"
    for where in ("outside/secret", "task-11/secret", "secret"):
        (tmp_path / where).write_text(SECRET)
    subprocess.run([*GIT, "init", "-q", str(root)], check=True)
    (root / ".git" / "secret").write_text(SECRET)
    (root / "plain.txt").write_text("plain")
    (root / "link").symlink_to("../outside/secret")
    (root / "absolute").symlink_to(tmp_path / "outside" / "secret")
    (root / "folder").symlink_to("../outside")
    (root / "chain").symlink_to("folder")
    (root / "proc").symlink_to("/proc/self/cwd")
    (root / "gitlink").symlink_to(".git")
    (root / "inner").symlink_to("plain.txt")
    os.link(tmp_path / "outside" / "secret", root / "hard")
    os.mkfifo(root / "fifo")
    held = Tree(root, tmp_path / "incoming")
    yield held
    held.close()


def outside(root: Path) -> dict[str, bytes]:
    """Everything that no tool may change, by its path."""
    kept = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    return {str(path): path.read_bytes() for path in kept if "task-1/" not in f"{path}/" or "/.git/" in str(path)}


def strings(corpora: Path) -> list[str]:
    """530 traversals (their placeholder filled in two ways) and 515 naughty strings."""
    lines = (corpora / "fuzzdb" / "traversals-8-deep-exotic-encoding.txt").read_text().splitlines()
    naughty = json.loads((corpora / "blns" / "blns.json").read_text())
    assert (len(lines), len(naughty)) == (530, 515)
    return [line.replace("{FILE}", target) for line in lines for target in ("etc/passwd", "secret")] + naughty


def test_supplied_strings_stay_inside(tree: Tree, tmp_path: Path, corpora: Path):
    before = outside(tmp_path)
    counts: Counter[str] = Counter()
    for text in strings(corpora):
        for what in ("write", "read", "walk"):
            counts["inputs"] += 1
            try:
                found = tree.write(text, b"x") if what == "write" else tree.read(text) if what == "read" else list(tree.walk(text))
                counts["accepted"] += 1
                assert SECRET.encode() not in (found if isinstance(found, bytes) else b"")
            except ToolRefused as refusal:
                counts["refused"] += 1
                assert len(str(refusal)) > 20
            except Exception:
                counts["crashed"] += 1
                raise
    print(dict(counts))
    assert outside(tmp_path) == before and counts["crashed"] == 0 and counts["refused"] > 0
    assert not any((tmp_path / "incoming").iterdir()), "nothing is left half-written"


GENERATED = [
    "..", "../task-11/secret", "../secret", "./../secret", "a/../../secret", "link", "absolute", "folder/secret", "chain/secret", "proc/secret",
    "proc/../outside/secret", "gitlink/secret", "inner", "hard", "fifo", "/etc/passwd", "/", "", ".", "plain.txt/x", ".git", ".git/secret", ".git/hooks/x",
    ".GIT/secret", ".Git/x", "a/.git/x", ".git /x", ".git./x", ".g\u200cit/x", "git~1/x", ".git::$INDEX_ALLOCATION/x", "a\x00b", "a\nb", "\ud800",
    "x" * 300, "/".join(["d"] * 3000), "//etc/passwd", "folder", "folder/new", "chain/new/deep", "link/", "plain.txt/",
]  # fmt: skip


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: ascii(path)[:30])
def test_generated_paths_are_refused(tree: Tree, tmp_path: Path, path: str):
    before = outside(tmp_path)
    with pytest.raises(ToolRefused):
        tree.write(path, b"x")
    if path not in ("plain.txt/",):
        with pytest.raises(ToolRefused):
            tree.read(path)
    assert outside(tmp_path) == before


def test_random_mixtures_stay_inside(tree: Tree, tmp_path: Path):
    pieces = [
        "..",
        ".",
        "",
        "link",
        "folder",
        "chain",
        "proc",
        "gitlink",
        ".git",
        "secret",
        "plain.txt",
        "new",
        "hard",
        "fifo",
        "outside",
        "task-11",
        "root",
        "\\",
        "%2e%2e",
    ]
    chance, before, counts = random.Random(7), outside(tmp_path), Counter()
    for _ in range(5000):
        path = "/".join(chance.choices(pieces, k=chance.randint(1, 6)))
        try:
            assert SECRET.encode() not in (tree.read(path) if chance.random() < 0.5 else tree.write(path, b"x").encode())
            counts["accepted"] += 1
        except ToolRefused:
            counts["refused"] += 1
    print(dict(counts))
    assert outside(tmp_path) == before and counts["accepted"] > 50


def seed_guard(workspace: Path, path: str) -> str:
    """The seed's read_file, word for word in what it checks."""
    resolved = os.path.realpath(os.path.join(workspace, path))
    if not resolved.startswith(os.path.realpath(workspace)):
        raise ToolRefused("Path traversal blocked")
    with open(resolved) as file:
        return file.read()


def test_control_the_seeds_guard_lets_siblings_hard_links_and_git_through(tree: Tree, tmp_path: Path):
    for path in ("../task-11/secret", "hard", ".git/secret"):
        assert seed_guard(tmp_path / "task-1", path) == SECRET
        with pytest.raises(ToolRefused):
            tree.read(path)


def test_a_swap_between_check_and_use_never_wins(tree: Tree, tmp_path: Path):
    """One thread swaps a file for a link to the secret as fast as it can; the seed's guard is raced by the same."""
    root = tmp_path / "task-1"
    (root / "swap").write_text("plain")
    (root / "swap.link").symlink_to("../outside/secret")
    code = (
        "import ctypes, os, sys\nlibc = ctypes.CDLL(None)\nos.chdir(sys.argv[1])\n"
        "while True: libc.renameat2(-100, b'swap', -100, b'swap.link', 2)"
    )
    swapper = subprocess.Popen(["python3", "-c", code, str(root)])
    counts: Counter[str] = Counter()
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and (counts["ours reads"] < 10_000 or not counts["seed escapes"]):
            readers = [("ours", lambda: tree.read("swap").decode()), ("seed", lambda: seed_guard(root, "swap"))]
            for name, read in readers[: 1 if counts["seed escapes"] >= 5 else 2]:
                counts[f"{name} reads"] += 1
                try:
                    counts[f"{name} escapes"] += read() == SECRET
                except (ToolRefused, OSError):
                    counts[f"{name} refusals"] += 1
    finally:
        swapper.kill()
        swapper.wait()
    print(dict(counts))
    assert counts["ours reads"] >= 10_000 and counts["ours refusals"] > 0, "the race was on"
    assert counts["ours escapes"] == 0
    assert counts["seed escapes"] > 0, "the control must lose"


def test_writes_keep_the_mode_and_replace_whole(tree: Tree, tmp_path: Path):
    script = tmp_path / "task-1" / "run.sh"
    script.write_text("old")
    script.chmod(0o755)
    assert tree.write("./run.sh", b"new") == "run.sh" and tree.write("a/b/c.txt", b"deep") == "a/b/c.txt"
    assert script.read_text() == "new" and script.stat().st_mode & 0o777 == 0o755
    names = [name for name, _ in tree.walk(".")]
    assert set(names) == {"a/b/c.txt", "hard", "plain.txt", "run.sh"}
    with pytest.raises(ToolRefused, match="1048576"):
        tree.write("big", b"x" * (1024 * 1024 + 1))


def test_without_openat2_nothing_is_opened(tree: Tree, monkeypatch):
    monkeypatch.setattr("include.worker.syscalls.OPENAT2", 9999)  # a number that no kernel has
    with pytest.raises(ToolRefused, match="newer"):
        tree.read("plain.txt")
    with pytest.raises(OSError):
        open_beneath(0, "plain.txt", os.O_RDONLY)
