"""Whose tests and settings judge a change: the base's, laid over a fresh copy of the candidate's tree.

Support files are tests, conftests, pytest's settings, and whatever lies in a folder named tests or test. What is read here was written
by others; nothing of it is imported.
"""

from __future__ import annotations

import configparser
import os
import shutil
import tomllib
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

FOLDERS = ("tests", "test")
PATTERNS = ("test_*.py", "*_test.py")
_OWN = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini")
_SHARED = ("pyproject.toml", "tox.ini", "setup.cfg")


class PytestSettings(NamedTuple):
    """What a tree's root says to pytest: in which file (None: in none), and the table itself."""

    file: str | None = None
    table: Any = None

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of test files."""
        return self._words("python_files") or PATTERNS

    @property
    def folders(self) -> tuple[str, ...]:
        """Where pytest looks for tests; empty: everywhere."""
        return self._words("testpaths")

    def test_file(self, word: str) -> str:
        """Name a test file by the first pattern."""
        return next(
            (each.replace("*", word) for each in self.patterns if each.count("*") == 1 and not set(each) & set("/?[")), f"test_{word}.py"
        )

    def test_function(self, word: str) -> str:
        """Name a test function by the first prefix."""
        first = (self._words("python_functions") or ("test",))[0].rstrip("*_")
        return f"{first}_{word}" if first.isidentifier() else f"test_{word}"

    def _words(self, name: str) -> tuple[str, ...]:
        given = self.table.get(name) if isinstance(self.table, dict) else None
        words = given.split() if isinstance(given, str) else given
        return tuple(map(str, words)) if isinstance(words, list) else ()


class Difference(NamedTuple):
    """How a candidate's support files differ from the base's.

    Attributes:
        new: test files of the candidate that are new or changed.
        replaced: test files of the base that the candidate changed or removed.
        harness: other support files of the base that it changed or removed, and conftests and settings that it brings.
    """

    new: tuple[str, ...]
    replaced: frozenset[str]
    harness: tuple[str, ...]


def settings_of(root: Path) -> PytestSettings:
    """Find pytest's settings of a tree as pytest does: the first file of its list that holds some."""
    for name in (*_OWN, *_SHARED):
        path = root / name
        if not path.is_symlink() and path.is_file():
            table = _table(path)
            if name in _OWN or table is not None:
                return PytestSettings(name, table)
    return PytestSettings()


def _table(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".toml":
            found = tomllib.loads(text)
            table = found.get("pytest") if path.name in _OWN else found.get("tool", {}).get("pytest")
            return table.get("ini_options", table) if isinstance(table, dict) else table
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        parser.read_string(text)
        section = "tool:pytest" if path.suffix == ".cfg" else "pytest"
        return dict(parser[section]) if parser.has_section(section) else None
    except (OSError, ValueError, configparser.Error, AttributeError, RecursionError):
        return None


def files(root: Path) -> list[str]:
    """List the files and links of a tree, without git's own."""
    found: list[str] = []
    for folder, below, names in os.walk(root):
        links = [name for name in below if os.path.islink(os.path.join(folder, name))]
        below[:] = sorted(name for name in below if name not in links and not (name == ".git" and folder == str(root)))
        found += [os.path.relpath(os.path.join(folder, name), root) for name in (*names, *links)]
    return sorted(path for path in found if path != ".git")


def is_test(path: str, settings: PytestSettings) -> bool:
    """Say whether pytest would look for tests in a file."""
    name = path.rpartition("/")[2]
    return any(fnmatch(name, pattern) or fnmatch(path, pattern) for pattern in settings.patterns)


def is_support(path: str, settings: PytestSettings) -> bool:
    """Say whether a file belongs to the tests, not to what is tested."""
    *folders, name = path.split("/")
    return name == "conftest.py" or is_test(path, settings) or path in _OWN or any(folder in FOLDERS for folder in folders)


def compare(base: Path, candidate: Path) -> Difference:
    """Compare the support files of two trees."""
    settings, theirs = settings_of(base), settings_of(candidate)
    before = {path for path in files(base) if is_support(path, settings)}
    now = {path for path in files(candidate) if is_support(path, settings)}
    other = {path for path in before | now if _content(base / path) != _content(candidate / path)}
    tests = {path for path in other if is_test(path, settings)}
    brought = {path for path in other - before if path.endswith("conftest.py")}
    harness = (other & before) - tests | brought
    if settings != theirs:
        harness |= {file for file in (settings.file, theirs.file) if file}
    return Difference(tuple(sorted(tests & now)), frozenset(tests & before), tuple(sorted(harness)))


def lay_base(base: Path, candidate: Path, target: Path) -> tuple[str, ...]:
    """Make a tree of the candidate's product and the base's support files; returns the arguments that give pytest the base's settings."""
    settings = settings_of(base)
    copy(candidate, target, (path for path in files(candidate) if not is_support(path, settings)))
    copy(base, target, (path for path in files(base) if is_support(path, settings)))
    if settings.file in _OWN:
        return ("-c", str(target / str(settings.file)))
    own = target / f".harness{Path(settings.file or 'none.ini').suffix}"
    own.unlink(missing_ok=True)
    if settings.file:
        shutil.copyfile(base / settings.file, own)
    else:
        own.write_text("[pytest]\n")
    return ("-c", str(own))


def copy(source: Path, target: Path, paths: Iterable[str]) -> None:
    """Copy files and links of one tree into another; what stands in the way of a folder there gives way."""
    for path in paths:
        where = target
        where.mkdir(exist_ok=True)
        *folders, name = path.split("/")
        for folder in folders:
            where = where / folder
            if where.is_symlink() or where.is_file():
                where.unlink()
            where.mkdir(exist_ok=True)
        if (where / name).is_dir() and not (where / name).is_symlink():
            shutil.rmtree(where / name)
        (where / name).unlink(missing_ok=True)
        shutil.copy(source / path, where / name, follow_symlinks=False)


def changed_since(base: Path, target: Path, own: Iterable[str] = ()) -> list[str]:
    """List the base's support files that are other ones in a tree now: whatever ran there rewrote them. ``own`` we wrote ourselves."""
    settings, apart = settings_of(base), frozenset(own)
    supports = [path for path in files(base) if is_support(path, settings) and path not in apart]
    return [path for path in supports if _content(base / path) != _content(target / path)]


def _content(path: Path) -> bytes | None:
    try:
        return b"link " + os.fsencode(os.readlink(path)) if path.is_symlink() else b"file " + path.read_bytes()
    except OSError:
        return None
