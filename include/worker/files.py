"""The work tree as the tools see it: no path leads out of it, and none into git's folder.

Every open is one ``openat2`` that the kernel resolves beneath the tree's root without any symbolic link, so there is no moment between a
check and its use. A write makes a new file elsewhere and renames it into place, so it never goes through a link either.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from include.worker import syscalls
from include.worker.errors import ToolRefused

MAX_FILE_BYTES = 1024 * 1024
MAX_DEPTH = 40
MAX_PATH = 1000
_BENEATH, _NO_SYMLINKS, _NO_MAGICLINKS = 0x08, 0x04, 0x02
_INVISIBLE = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SKIPPED_FOLDERS = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache", "node_modules", ".venv"})


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(root: int, path: str, flags: int) -> int:
    """Open ``path`` below the folder ``root`` (a descriptor), through no symbolic link and no ``..`` that leaves it.

    Raises:
        OSError: no such file, or the path leads out (EXDEV) or through a link (ELOOP). ENOSYS before Linux 5.6: nothing is opened then.
    """
    how = _How(flags | os.O_CLOEXEC, 0, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)
    name = ctypes.c_char_p(os.fsencode(path))
    return syscalls.call(syscalls.OPENAT2, ctypes.c_int(root), name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how)))


def plain_path(path: str) -> str:
    """Bring a path into its plainest form, relative to the root; ``.`` is the root itself.

    Raises:
        ToolRefused: it is no path of the work tree.
    """
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts:
        raise ToolRefused(f"{path[:200]!r} leads out of the repository. Give a path from its root, like 'src/app.py', without '..'.")
    if len(parts) > MAX_DEPTH or len(path) > MAX_PATH:
        raise ToolRefused(f"{path[:80]!r}… is too long a path; at most {MAX_DEPTH} folders and {MAX_PATH} characters. Use a shorter one.")
    if _CONTROL.search(path) or not _encodes(path):
        raise ToolRefused(f"{path[:200]!r} holds control characters or is not valid Unicode. Use another name.")
    if any(map(_is_git, parts)):
        raise ToolRefused(f"{path[:200]!r} lies in git's own folder, which no tool touches. Use git_commit to commit.")
    return "/".join(parts) or "."


class Tree:
    """The work tree, held open.

    Args:
        root: its folder.
        incoming: a folder on the same file system, outside the tree, where new content is written before it is renamed into place.
    """

    def __init__(self, root: Path, incoming: Path) -> None:
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._incoming = incoming

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._root)

    def read(self, path: str) -> bytes:
        """Read a regular file.

        Raises:
            ToolRefused: no such file, not a regular file of the tree's own, or larger than 1 MiB.
        """
        plain = plain_path(path)
        try:
            descriptor = open_beneath(self._root, plain, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise _refusal(plain, error) from None
        try:
            _check_regular(plain, os.fstat(descriptor))
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_FILE_BYTES)
        finally:
            os.close(descriptor)

    def write(self, path: str, content: bytes) -> str:
        """Make or replace a file, and the folders above it; returns the path in its plain form.

        Raises:
            ToolRefused: the path is taken by something else than a regular file, leads through a link, or cannot be written.
        """
        plain = plain_path(path)
        if plain == "." or path.endswith("/"):
            raise ToolRefused(f"{path!r} is a folder. Give the path of a file.")
        if len(content) > MAX_FILE_BYTES:
            raise ToolRefused(f"{plain}: {len(content)} bytes; at most {MAX_FILE_BYTES} can be written. Split the file.")
        folder, _, name = plain.rpartition("/")
        try:
            parent = self._make_folders(folder)
            try:
                self._replace(parent, plain, name, content)
            finally:
                os.close(parent)
        except OSError as error:
            raise _refusal(plain, error) from None
        return plain

    def walk(self, path: str) -> Iterator[tuple[str, os.stat_result]]:
        """Yield every regular file below a folder (or the file itself), sorted, links and caches left out.

        Raises:
            ToolRefused: no such folder.
        """
        plain = plain_path(path)
        try:
            descriptor = open_beneath(self._root, plain, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise _refusal(plain, error) from None
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                yield plain, os.fstat(descriptor)
                return
            for folder, folders, files, at in os.fwalk(".", dir_fd=descriptor, follow_symlinks=False):
                deep = folder.count("/") >= MAX_DEPTH  # a test may have made a tree without a bottom
                folders[:] = [] if deep else sorted(name for name in folders if name not in SKIPPED_FOLDERS and not _is_git(name))
                for name in sorted(files):
                    about = os.stat(name, dir_fd=at, follow_symlinks=False)
                    if stat.S_ISREG(about.st_mode) and not _is_git(name) and _encodes(name):
                        yield os.path.normpath(f"{plain}/{folder}/{name}"), about
        finally:
            os.close(descriptor)

    def _make_folders(self, folder: str) -> int:
        """The folder as a descriptor; what is missing of it is made, one step at a time."""
        at = open_beneath(self._root, ".", os.O_PATH | os.O_DIRECTORY)
        for part in filter(None, folder.split("/")):
            try:
                below = open_beneath(at, part, os.O_PATH | os.O_DIRECTORY)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=at)
                below = open_beneath(at, part, os.O_PATH | os.O_DIRECTORY)
            finally:
                os.close(at)
            at = below
        return at

    def _replace(self, parent: int, plain: str, name: str, content: bytes) -> None:
        mode = 0o644
        try:
            about = os.stat(name, dir_fd=parent, follow_symlinks=False)
            _check_regular(plain, about)
            mode |= stat.S_IMODE(about.st_mode) & 0o111
        except FileNotFoundError:
            pass
        new = self._incoming / secrets.token_hex(8)
        try:
            new.write_bytes(content)
            new.chmod(mode)
            os.rename(new, name, dst_dir_fd=parent)
        finally:
            new.unlink(missing_ok=True)


def _is_git(part: str) -> bool:
    """``.git`` in any spelling that some file system takes for it."""
    seen = _INVISIBLE.sub("", part).casefold().split(":", 1)[0].rstrip(" .")
    return seen == ".git" or re.fullmatch(r"git~\d+", seen) is not None


def _encodes(path: str) -> bool:
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_regular(plain: str, about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise ToolRefused(f"{plain} is not a regular file. Tools read and write regular files only; list_files shows them.")
    if about.st_nlink != 1:
        raise ToolRefused(f"{plain} is a hard link to another file, which may lie outside of the repository. Use another file.")
    if about.st_size > MAX_FILE_BYTES:
        raise ToolRefused(
            f"{plain} has {about.st_size} bytes; tools handle files up to {MAX_FILE_BYTES}. Use search_files to find the part."
        )


def _refusal(plain: str, error: OSError) -> ToolRefused:
    why = {
        errno.ENOENT: "does not exist. list_files('.') shows what does.",
        errno.EISDIR: "is a folder. Use list_files for it.",
        errno.ENOTDIR: "goes through a file, or is no folder. list_files('.') shows what there is.",
        errno.ELOOP: "goes through a symbolic link, which tools do not follow. Use the path that it points to.",
        errno.EXDEV: "leads out of the repository. Give a path from its root.",
        errno.ENAMETOOLONG: "is too long a name. Use a shorter one.",
        errno.ENOSYS: "cannot be opened safely: this kernel has no openat2 (Linux 5.6). Run the sandbox on a newer one.",
    }
    return ToolRefused(f"{plain[:200]} {why.get(error.errno or 0, f'cannot be used: {error.strerror}.')}")
