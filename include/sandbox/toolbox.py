"""Builds the toolbox that every sandbox mounts read-only as /opt/airlock: ``worker.pyz``, and ``site/`` with pytest.

Everything in it is pure Python for 3.11 and newer, so one toolbox serves every image and the bare machine.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.metadata
import importlib.util
import io
import marshal
import os
import py_compile
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from include.errors import SandboxFailed
from include.settings import ROOT, Settings

PACKAGES = ("pytest", "pluggy", "iniconfig", "packaging", "pygments")
_VERSION = "version"
_MAIN = "import sys\n\nfrom include.worker.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
_EARLIEST = (1980, 1, 1, 0, 0, 0)


def build(settings: Settings) -> Path:
    """Build the toolbox of this code and this environment, unless it is there.

    Two processes may build at the same time: each makes a whole one, and one rename wins. The one
    before an upgrade is kept until the next, because running sandboxes have it mounted.

    Returns:
        ``settings.toolbox_dir``, readable by every uid.

    Raises:
        SandboxFailed: pytest, or a package that it needs, is not installed here or is not pure Python.
    """
    target = settings.toolbox_dir
    content = dict(_content())
    version = _version(content)
    if _is(target, version):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".toolbox-", dir=target.parent))
    try:
        _write(fresh, content, version)
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def worker_zip(compiled: bool = False) -> bytes:
    """Make ``worker.pyz``: the island and nothing else, the same bytes for the same code.

    Args:
        compiled: with each module compiled beside its source, for this version of Python (another one passes it by). Those bytes may differ
            from one process to the next.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # not deflated: each sealed child reads it
        for name, code in sorted(_island()):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), code)
            if compiled and name.startswith("include/worker/"):
                archive.writestr(zipfile.ZipInfo(f"{name}c", _EARLIEST), _bytecode(name, code))
    return buffer.getvalue()


def _bytecode(name: str, code: bytes) -> bytes:
    """A module as a file that Python loads without a look at the source (PEP 552: by a hash that is never checked)."""
    made = compile(code, f"/opt/airlock/worker.pyz/{name}", "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(made)


def _island() -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN.encode()
    yield "include/__init__.py", (ROOT / "include" / "__init__.py").read_bytes()
    for path in (ROOT / "include" / "worker").glob("*.py"):
        if path.name != "run_pytest.py":
            yield f"include/worker/{path.name}", path.read_bytes()


def _content() -> Iterator[tuple[str, bytes]]:
    """Every file of the toolbox: its relative path, and its bytes."""
    yield "worker.pyz", worker_zip()
    yield "site/run_pytest.py", (ROOT / "include" / "worker" / "run_pytest.py").read_bytes()
    for package in PACKAGES:
        yield from _package(package)


def _package(name: str) -> Iterator[tuple[str, bytes]]:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise SandboxFailed(
            f"{name} is not installed beside Airlock, and sandboxes need it. Run ./airlock again to complete the environment."
        ) from None
    for file in distribution.files or []:
        path = PurePosixPath(file)
        if ".." in path.parts or "__pycache__" in path.parts or path.suffix == ".pyc":
            continue
        if path.suffix in (".so", ".pyd"):
            raise SandboxFailed(
                f"{name} {distribution.version} has compiled parts ({path}); the toolbox takes pure Python only. Install another release."
            )
        yield f"site/{path}", Path(str(distribution.locate_file(file))).read_bytes()


def _version(content: dict[str, bytes]) -> str:
    whole = hashlib.sha256(str(sys.implementation.cache_tag).encode())
    for name, data in sorted(content.items()):
        whole.update(f"{name}\0{hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()


def _is(target: Path, version: str) -> bool:
    try:
        return (target / _VERSION).read_text() == version
    except OSError:
        return False


def _write(folder: Path, content: dict[str, bytes], version: str) -> None:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    _compile(folder)
    (folder / _VERSION).write_text(version)
    for path in [folder, *folder.rglob("*")]:  # every uid reads, nobody writes
        path.chmod(0o755 if path.is_dir() else 0o644)


def _compile(folder: Path) -> None:
    """Compile the worker and pytest once for this version of Python (a sandbox cannot keep what it compiles); any other passes it by."""
    (folder / "worker.pyz").write_bytes(worker_zip(compiled=True))
    never_checked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(folder / "site", quiet=2, stripdir=str(folder), prependdir="/opt/airlock", invalidation_mode=never_checked)


def _swap(fresh: Path, target: Path) -> None:
    """Put the folder in its place. The one before it is kept beside: sandboxes that run now still read it."""
    before = target.with_name(f"{target.name}.before")
    if target.exists():
        shutil.rmtree(before, ignore_errors=True)
        os.rename(target, before)
    try:
        os.rename(fresh, target)
    except OSError:
        if not (target / _VERSION).exists():  # else another process was faster, with the same content
            raise
