"""Landlock: which files a sealed process may reach (kernel 5.13 and newer; what it can do is told by its ABI number).

Landlock does not check ``connect()`` to a unix socket by its path; seccomp.py closes that.
"""

from __future__ import annotations

import ctypes
import os
import stat

from include.worker import syscalls

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_SOCK, _MAKE_BLOCK = 1 << 6, 1 << 9, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_ABSTRACT_SOCKETS, _SIGNALS = 1 << 0, 1 << 1
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def abi() -> int:
    """Ask for the kernel's Landlock version; 0 where there is none (an old kernel, switched off, or a container that forbids the calls)."""
    try:
        return syscalls.call(syscalls.LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    except OSError:
        return 0


def restrict(version: int, read: list[str], write: list[str]) -> None:
    """From here on, this process and its children reach only these paths and what lies beneath them. Needs no-new-privs.

    Args:
        version: what ``abi()`` said; at least 1.
        read: to read and execute. A path that does not exist is left out.
        write: to do everything with, except making devices and sockets.

    Raises:
        OSError: the kernel refused.
    """
    handled = _handled(version)
    size = 8 if version < 4 else 16 if version < 6 else 24
    attributes = _Ruleset(handled, 0, _ABSTRACT_SOCKETS | _SIGNALS)
    ruleset = syscalls.call(syscalls.LANDLOCK_CREATE, ctypes.byref(attributes), ctypes.c_size_t(size), ctypes.c_uint32(0))
    try:
        for path in read:
            _allow(ruleset, path, handled & _READ)
        for path in write:
            _allow(ruleset, path, handled & ~(_MAKE_CHAR | _MAKE_SOCK | _MAKE_BLOCK))
        syscalls.call(syscalls.LANDLOCK_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _handled(version: int) -> int:
    rights = (1 << 13) - 1
    for needed, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        rights |= right if version >= needed else 0
    return rights


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, so nothing to allow
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _FILE_RIGHTS
        rule = _Beneath(rights, descriptor)
        syscalls.call(syscalls.LANDLOCK_ADD, ctypes.c_int(ruleset), ctypes.c_int(1), ctypes.byref(rule), ctypes.c_uint32(0))
    finally:
        os.close(descriptor)
