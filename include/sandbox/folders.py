"""Where the attempts' directories lie, and what is laid beside them once: the toolbox, and a Python where the machine has none.

``root/<sandbox>/`` is one attempt; names with a leading dot are not attempts.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from include.errors import SandboxFailed
from include.sandbox.models import Mount
from include.settings import Settings

HOST_PYTHON: Final = Path("/usr/bin/python3")
OLDEST_PYTHON: Final = (3, 11)


def root(settings: Settings) -> Path:
    """Find the folder of the attempts' directories: the setting, else home/sandboxes, else (root, and home is closed) under /var/lib."""
    if settings.sandbox_root:
        return settings.sandbox_root
    beside = settings.home / "sandboxes"
    if os.geteuid() != 0 or searchable_by_all(settings.home):
        return beside
    return Path("/var/lib/airlock") / hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]


def owner(settings: Settings) -> str:
    """Make the mark of what belongs to this home's node, so that nobody sweeps the sandboxes of another home."""
    return f"{hashlib.sha256(str(settings.home).encode()).hexdigest()[:12]}:{settings.node}"


def searchable_by_all(path: Path) -> bool:
    """Say whether a process without rights can reach into this folder."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents) if folder.exists())


def prepare_root(settings: Settings) -> Path:
    """Make the folder of the attempts' directories.

    Raises:
        SandboxFailed: a sandbox without rights could not reach it.
    """
    folder = root(settings)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    if os.geteuid() == 0 and not searchable_by_all(folder):
        raise SandboxFailed(
            f"{folder} lies in a folder that only its owner may enter; set AIRLOCK_SANDBOX_ROOT to one that all may search."
        )
    return folder


# -- toolbox ---------------------------------------------------------------------------------------------------------------


def toolbox(settings: Settings, into: Path) -> Path:
    """Make a copy of the toolbox that every sandbox can read and that does not change under it; made once for each content.

    Raises:
        SandboxFailed: there is no worker.pyz.
    """
    if not (settings.toolbox_dir / "worker.pyz").exists():
        raise SandboxFailed(f"{settings.toolbox_dir}/worker.pyz is missing. Run `./airlock up` again: it builds the toolbox.")
    target = into / f".toolbox-{_fingerprint(settings.toolbox_dir)}"
    if not target.exists():
        _copy_readable(settings.toolbox_dir, target)  # with what is compiled in it: a test run would else compile pytest anew
    return target


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            about = path.stat()
            digest.update(f"{path.relative_to(folder)}\0{about.st_size}\0{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _copy_readable(source: Path, target: Path, *ignored: str) -> None:
    """Copy a tree under a temporary name, readable by all, then give it its name."""
    part = Path(tempfile.mkdtemp(prefix=f"{target.name}.part-", dir=target.parent))  # its own: two sandboxes may start at once
    shutil.copytree(source, part, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*ignored))
    subprocess.run(["chmod", "-R", "a+rX,go-w", str(part)], check=True)
    try:
        part.rename(target)
    except OSError:  # another start was faster with the same content
        shutil.rmtree(part, ignore_errors=True)


# -- Python for process sandboxes ------------------------------------------------------------------------------------------


def host_python_is_enough() -> bool:
    """Say whether /usr/bin/python3, which every process sandbox sees, is new enough."""
    if not HOST_PYTHON.exists():
        return False
    probe = f"import sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
    return subprocess.run([str(HOST_PYTHON), "-I", "-S", "-c", probe], check=False).returncode == 0


def python_inside(into: Path) -> tuple[str, Mount | None]:
    """Find the interpreter's path in a process sandbox, and the mount it needs: the machine's own, else a copy of ours at /opt/python."""
    if host_python_is_enough():
        return str(HOST_PYTHON), None
    return f"/opt/python/bin/python{sys.version_info[0]}.{sys.version_info[1]}", Mount(own_python(into), "/opt/python", False)


def own_python(into: Path) -> Path:
    """Make a copy of the Python that runs us, without installed packages and its own tests; made once for each version."""
    target = into / f".python-{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}"
    if not target.exists():
        _copy_readable(Path(sys.base_prefix), target, "__pycache__", "site-packages", "test", "idlelib", "*.a", "share", "include")
    return target
