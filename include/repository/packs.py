"""A pack of a worker is measured before git sees it: how many objects, and how large each and all together become."""

from __future__ import annotations

import os
import zlib
from typing import NamedTuple

from include.errors import BundleRefused

MAX_OBJECTS = 20_000
"""Objects of a hand-in. Honest ones have tens: a commit, its folders and its files for each step of a worker."""
MAX_UNPACKED_BYTES = 128 * 1024 * 1024
"""What all objects become together. Git reads and hashes as much within a second or two, and holds it within its limits of memory."""
_READ_BYTES = 64 * 1024
_DELTAS = (6, 7)  # by the place of the base in the pack, by its id
_KINDS = (1, 2, 3, 4, *_DELTAS)


class _Entry(NamedTuple):
    """The head of one object: what it is, its size before compression, and where its data begins."""

    kind: int
    size: int
    data: int


def measure(descriptor: int, start: int) -> int:
    """Count the objects of a pack and bound what they become, without keeping any of it: a file of a few KiB can hold a GiB.

    Args:
        descriptor: of the hand-in.
        start: where its pack begins.

    Returns:
        How many objects the pack holds.

    Raises:
        BundleRefused: it is no whole pack, or more comes out of it than is taken.
    """
    head = os.pread(descriptor, 12, start)
    if len(head) < 12 or head[:8] != b"PACK\0\0\0\2":
        raise BundleRefused("the bundle holds no pack of version 2")
    number = int.from_bytes(head[8:], "big")
    if number > MAX_OBJECTS:
        raise BundleRefused(f"the bundle holds {number} objects; at most {MAX_OBJECTS} are taken. Hand in fewer or smaller commits")
    at, total = start + 12, 0
    for _ in range(number):
        entry = _entry(descriptor, at)
        total += entry.size
        _check_total(total)
        grown, at = _inflate(descriptor, entry)
        total += grown
        _check_total(total)
    if os.fstat(descriptor).st_size != at + 20:
        raise BundleRefused("the pack breaks off, or something follows it")
    return number


def _check_total(total: int) -> None:
    if total > MAX_UNPACKED_BYTES:
        raise BundleRefused(f"the bundle unpacks to more than {MAX_UNPACKED_BYTES} bytes, which is the most that is taken")


def _entry(descriptor: int, at: int) -> _Entry:
    head = os.pread(descriptor, 64, at)
    try:
        kind, size, place, shift = head[0] >> 4 & 7, head[0] & 15, 1, 4
        while head[place - 1] & 128:
            size |= (head[place] & 127) << shift
            place, shift = place + 1, shift + 7
        if kind == _DELTAS[0]:
            while head[place] & 128:
                place += 1
            place += 1
    except IndexError:
        raise BundleRefused("the pack breaks off") from None
    if kind not in _KINDS:
        raise BundleRefused(f"the pack holds an object of the unknown kind {kind}")
    return _Entry(kind, size, at + place + (20 if kind == _DELTAS[1] else 0))


def _inflate(descriptor: int, entry: _Entry) -> tuple[int, int]:
    """Unpack one object and forget it; return what a delta grows to (0 for others), and where the next object begins."""
    unpacker, at, size, start = zlib.decompressobj(), entry.data, 0, b""
    while not unpacker.eof:
        read = unpacker.unconsumed_tail
        if not read:
            read = os.pread(descriptor, _READ_BYTES, at)
            at += len(read)
        if not read:
            raise BundleRefused("the pack breaks off")
        try:
            out = unpacker.decompress(read, _READ_BYTES)
        except zlib.error as error:
            raise BundleRefused(f"the pack is damaged: {error}") from None
        size, start = size + len(out), start or out[:32]
        if size > entry.size:
            break
    if size != entry.size:
        raise BundleRefused(f"the pack says that an object has {entry.size} bytes, and it has others")
    return _grows_to(start) if entry.kind in _DELTAS else 0, at - len(unpacker.unused_data)


def _grows_to(delta: bytes) -> int:
    """Read what a delta makes: it begins with the size of its base, then its own."""
    sizes, size, shift = [], 0, 0
    for byte in delta:
        size |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            sizes.append(size)
            size = shift = 0
        if len(sizes) == 2:
            return sizes[1]
    raise BundleRefused("the pack holds a broken delta")
