"""Small hand-ins that stand for much are refused in bounded time and memory; hand-ins made at random hang and crash nothing."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from include.errors import BundleRefused
from include.repository import changes, git, objects, packs, quarantine, trees
from tests.kit.scale import count, limit
from tests.kit.servers import ROOT
from tests.repository.people import Repo
from tests.repository.world import BLOB, COMMIT, DELTA, TREE, World, commit, delta, entry, number, oid, tree

pytestmark = pytest.mark.slow
SECONDS = 10.0
"""Processor seconds of Python and git together. Before: 196 s for ten entries nested six deep."""
MIB = 320
"""The largest process. Before: 251 MiB in Python, and up to a GiB in git."""
Pack = list[tuple[int, bytes] | tuple[int, bytes, bytes]]
_ACCEPT = """
import json, resource, sys, time
from pathlib import Path
from include.errors import BundleRefused
from include.repository import quarantine
mirror, handin, base = sys.argv[1:]
before, words = time.process_time(), "accepted"
try:
    quarantine.accept(Path(mirror), Path(handin), base, "g1-a", 1)
except BundleRefused as refused:
    words = str(refused)
git = resource.getrusage(resource.RUSAGE_CHILDREN)
# Not ru_maxrss of this process: it begins with what the process that started it had.
own = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
seconds = time.process_time() - before + git.ru_utime + git.ru_stime
print(json.dumps([words, seconds, max(own, git.ru_maxrss if git.ru_utime else 0) / 1024]))
"""


def _nested(deep: int, wide: int = 10, inner: bytes | None = None) -> Pack:
    """A tree of ``wide`` entries, each the same tree, and so on."""
    pack: Pack = [(BLOB, b"x")] if inner is None else []
    rows = tree(*[(b"100644", b"f%d" % n, oid(BLOB, b"x")) for n in range(wide)]) if inner is None else inner
    pack.append((TREE, rows))
    for _ in range(deep - 1):
        rows = tree(*[(b"40000", b"d%d" % n, oid(TREE, rows)) for n in range(wide)])
        pack.append((TREE, rows))
    return pack


def _on_top(world: World, pack: Pack, *parents: str) -> Path:
    """A hand-in whose one commit has the pack's last tree."""
    made = commit(oid(TREE, pack[-1][1]), world.base, *parents)
    return world.packed(oid(COMMIT, made), *pack, (COMMIT, made))


def _line(world: World, long: int) -> Path:
    whole, at, pack = tree((b"100644", b"f", oid(BLOB, b"x"))), world.base, []
    for step in range(long):
        made = commit(oid(TREE, whole), at, message=b"%d\n" % step)
        pack.append((COMMIT, made))
        at = oid(COMMIT, made)
    return world.packed(at, (BLOB, b"x"), (TREE, whole), *pack)


def _deltas(world: World) -> Path:
    """A blob of 1 MiB, and 200 deltas of it that make 100 MiB each out of 800 bytes."""
    base = b"x" * 2**20
    pack: Pack = [(BLOB, base)]
    at = len(entry(*pack[0]))
    for _ in range(200):
        each = (DELTA, delta(2**20, 100), _distance(at))
        at += len(entry(*each))
        pack.append(each)
    return world.packed("1" * 40, *pack)


def _chain(world: World) -> Path:
    """15,000 deltas, each of the one before it."""
    pack: Pack = [(BLOB, b"x" * 5_000)]
    for step in range(15_000):
        words = number(5_000) + number(5_000) + b"\xb0\x84\x13" + b"\x04%04x" % (step % 65_536)  # 4,996 bytes copied, 4 new ones
        pack.append((DELTA, words, _distance(len(entry(*pack[-1])))))
    return world.packed("1" * 40, *pack)


def _distance(back: int) -> bytes:
    """How far back a delta's base stands, as packs write it."""
    out = [back & 127]
    while back := back >> 7:
        back -= 1
        out.append(128 | back & 127)
    return bytes(reversed(out))


def _prerequisites(world: World) -> Path:
    handin = _line(world, 1)
    line = f"-{world.base}\n".encode()
    handin.write_bytes(handin.read_bytes().replace(line, line * 1_000, 1))
    return handin


def _refs(world: World) -> Path:
    handin = _line(world, 1)
    more = b"".join(b"%040d refs/heads/b%d\n" % (n, n) for n in range(900))
    handin.write_bytes(handin.read_bytes().replace(b" refs/heads/task\n", b" refs/heads/task\n" + more, 1))
    return handin


def _base_again(world: World) -> Path:
    """The base's own folder a million times: nothing of it stands in the hand-in."""
    folder = world.worker.git("rev-parse", "HEAD:docs")
    rows = tree(*[(b"40000", b"d%04d" % n, folder) for n in range(1_000)])
    return _on_top(world, [(TREE, rows), (TREE, tree(*[(b"40000", b"e%04d" % n, oid(TREE, rows)) for n in range(1_000)]))])


def _empty(world: World) -> Path:
    pack = _nested(7, inner=tree(*[(b"40000", b"d%d" % n, oid(TREE, b"")) for n in range(10)]))
    return _on_top(world, [(TREE, b""), *pack])


BOMBS: dict[str, tuple[Callable[[World], Path], str]] = {
    "five deep": (lambda world: _on_top(world, _nested(5)), "more than 10000 files"),
    "six deep": (lambda world: _on_top(world, _nested(6)), "more than 10000 files"),
    "fifty deep": (lambda world: _on_top(world, _nested(50)), "more than 10000 files"),
    "empty folders": (_empty, "more than 10000 files"),
    "the base's folder a million times": (_base_again, "more than 10000 files"),
    "a line of folders": (lambda world: _on_top(world, _nested(15_000, wide=1)), "has more than 4096 bytes"),
    "deltas": (_deltas, "unpacks to more than 134217728 bytes"),
    "chain of deltas": (_chain, ""),
    "many objects": (lambda world: world.packed("1" * 40, *[(BLOB, b"%d" % n) for n in range(20_001)]), "holds 20001 objects"),
    "huge blob": (lambda world: world.packed("1" * 40, (BLOB, bytes(200 * 2**20))), "unpacks to more than 134217728 bytes"),
    "large blobs": (lambda world: world.packed("1" * 40, *[(BLOB, bytes(2**20 * n)) for n in range(20)]), "unpacks to more than 134217728"),
    "one flat folder": (
        lambda world: _on_top(world, [(BLOB, b"x"), (TREE, tree(*[(b"100644", b"%06d" % n, oid(BLOB, b"x")) for n in range(200_000)]))]),
        "more than 10000 files",
    ),
    "many prerequisites": (_prerequisites, "builds on 1000 commits"),
    "many refs": (_refs, "exactly one ref"),
    "many parents": (lambda world: _on_top(world, _nested(1), *[world.base] * 1_000), "has 1001 parents"),
    "1,001 commits": (lambda world: _line(world, 1_001), "more than 1000 commits"),
    "20,000 commits": (lambda world: _line(world, 20_000), "holds 20002 objects"),
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_bounded_time_and_memory(world: World, name: str) -> None:
    make, words = BOMBS[name]
    handin = make(world)
    size = handin.stat().st_size
    run = [sys.executable, "-c", _ACCEPT, str(world.mirror), str(handin), world.base]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, check=True, timeout=300, env={**os.environ, "PYTHONPATH": str(ROOT)})
    said, seconds, mib = json.loads(done.stdout)
    print(f"\n{name}: {size} bytes, {seconds:.2f} s of processor, {mib:.0f} MiB: {said[:150]}")
    assert said != "accepted" and words in said
    assert seconds < limit(SECONDS) and mib < MIB
    assert not list((world.mirror / "objects").glob("quarantine-*"))


def test_control_without_the_bounds_a_tree_of_ten_is_a_hundred_thousand(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handin = _on_top(world, _nested(5))
    assert handin.stat().st_size < 2_000
    Repo(world.mirror).git("fetch", "-q", str(handin), "refs/heads/task:refs/evil")
    ends = [trees.tree_of(world.mirror, end) for end in (world.base, "refs/evil")]
    with objects.reading(world.mirror, git.AS_USUAL) as reader:
        assert len(changes.compare(reader, ends[0], ends[1], 1_000_000).changes) == 100_002  # two of the base are gone
    monkeypatch.setattr(objects, "MAX_ENTRIES", 50_000)
    with objects.reading(world.mirror, git.AS_USUAL) as reader, pytest.raises(BundleRefused, match="more than 50000 names"):
        changes.compare(reader, ends[0], ends[1], 1_000_000)


def test_control_without_the_measure_git_unpacks_the_bomb(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    handin = world.packed("1" * 40, *[(BLOB, bytes(2**20 * n)) for n in range(20)])
    monkeypatch.setattr(packs, "MAX_UNPACKED_BYTES", 2**40)
    with pytest.raises(BundleRefused, match="cannot be read"):  # git took all of it: only the tip is not there
        world.accept(handin)


def _mutated(chance: random.Random, raw: bytes) -> bytes:
    out = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(out)) if out else 0
        way = chance.randrange(4)
        if way == 0 and out:
            out[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            del out[at : at + chance.randint(1, 20)]
        elif way == 2:
            out[at:at] = chance.randbytes(chance.randint(1, 20))
        else:
            out[at:at] = out[chance.randrange(len(out) or 1) :][:30]
    return bytes(out)


_NAMES = (b"b.py", b"a.py", b"b", b"c", b"\xc3\xa9")
_ODD_NAMES = (b"A.py", b".git", b"..", b"e\xcc\x81", b"aux", b"x\xe2\x80\xaey", b"\xff", b"B")
_MODES = (b"100644", b"100755", b"40000", b"40000")
_ODD_MODES = (b"120000", b"160000", b"100600", b"0")


def _made(chance: random.Random, world: World) -> Path:
    """Objects with right sums and sizes, and anything in them: what bits that flip by chance never reach."""
    pack: list[tuple[int, bytes]] = [(BLOB, chance.choice([b"x", b"/etc/passwd", b"../a.py", b"a.py"])), (TREE, b"")]
    for _ in range(chance.randint(1, 3)):
        found = {}
        for plain in chance.sample(_NAMES, chance.randint(1, 3)):
            name = chance.choice(_ODD_NAMES) if chance.random() < 0.1 else plain
            mode = chance.choice(_ODD_MODES if chance.random() < 0.1 else _MODES)
            inner = next(content for kind, content in reversed(pack) if kind == (TREE if mode == b"40000" else BLOB))
            found[name] = (mode, name, oid(TREE if mode == b"40000" else BLOB, inner))
        rows = tree(*found.values())
        pack.append((TREE, rows if chance.random() < 0.8 else _mutated(chance, rows)))
    at = world.base
    for _ in range(chance.randint(1, 3)):
        parents = (at,) if chance.random() < 0.9 else (at, world.base)
        made = commit(oid(TREE, chance.choice([content for kind, content in pack if kind == TREE])), *parents)
        made = made if chance.random() < 0.8 else _mutated(chance, made)
        pack.append((COMMIT, made))
        at = oid(COMMIT, made)
    return world.packed(at, *pack)


def _broken(chance: random.Random, world: World, honest: bytes) -> Path:
    (world.folder / "handin").write_bytes(_mutated(chance, honest))
    return world.folder / "handin"


def _as_plain_git_reads(world: World, tip: str) -> None:
    """What was accepted is what plain git reads: whole, one line of commits on the base, with the changes that we saw."""
    plain = Repo(world.mirror)
    plain.git("fsck", "--strict", "--no-dangling", tip)
    line = [row.split() for row in plain.git("rev-list", "--parents", f"{world.base}..{tip}").splitlines()]
    assert all(len(row) == 2 for row in line) and (not line or line[-1][1] == world.base)
    listed = plain.git("diff-tree", "-r", "--raw", "--no-renames", "-z", world.base, tip).split("\0")
    ends = [trees.tree_of(world.mirror, end) for end in (world.base, tip)]
    with objects.reading(world.mirror, git.AS_USUAL) as reader:
        assert sorted(each.path.decode() for each in changes.compare(reader, ends[0], ends[1]).changes) == sorted(listed[1::2])
    assert not {row.split(" ")[1] for row in listed[:-1:2]} - {"000000", "100644", "100755", "120000"}


@pytest.mark.sized
@pytest.mark.parametrize("seed", [20_260, 11_281])
def test_hand_ins_made_at_random(world: World, seed: int) -> None:
    chance, accepted, tried = random.Random(seed), 0, count(120, 5_000)
    world.worker.commit({"b.py": "B = 2\n", "docs/c.md": "more\n" * 50})
    honest = world.bundle().read_bytes()
    before = os.times()
    for number_of in range(tried):
        handin = _made(chance, world) if chance.random() < 0.5 else _broken(chance, world, honest)
        try:
            tip = quarantine.accept(world.mirror, handin, world.base, f"g1-{number_of}", 1)
        except BundleRefused:
            continue
        accepted += 1
        _as_plain_git_reads(world, tip)
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    print(f"\n{tried} hand-ins at random, {accepted} accepted, {spent / tried * 1000:.0f} ms of processor each")
    assert 0 < accepted < tried and spent < limit(0.5) * tried
    Repo(world.mirror).git("fsck", "--strict")
