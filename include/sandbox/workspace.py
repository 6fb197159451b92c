"""The directory of one attempt: workspace with a quota, base bundle, spec, one-shot key; and the way out for the hand-in.

Everything can be done again after a kill at any point: the directory's name is the marker, and a half-made one is removed whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Final
from uuid import UUID

from include.errors import SandboxFailed
from include.sandbox import profile
from include.sandbox.models import Handin, KeyPair, LeaseRow

_CHUNK: Final = 1024 * 1024
_STARTED: Final = "started"


# -- in --------------------------------------------------------------------------------------------------------------------


def make(folder: Path, lease: LeaseRow, keys: KeyPair | None, bundles: Path, uid: int | None, quota: bool) -> None:
    """Make the directory of an attempt; a half-made one of an earlier try is removed first.

    Args:
        folder: ``root/<sandbox>``.
        keys: for work; None for verify, which gets no key.
        bundles: where ``<input commit>.bundle`` lies.
        uid: who owns what the sandbox may write; None: the one who asks.
        quota: mount a loop image as the workspace (root only), so that bytes and inodes are bounded.

    Raises:
        SandboxFailed: the bundle is missing, or a tool failed.
    """
    remove(folder)
    folder.mkdir(mode=0o700)
    workspace, task, secret = folder / "workspace", folder / "task", folder / "secret"
    for inner in (workspace, task):
        inner.mkdir()
    task.chmod(0o755)
    if quota:
        _mount_quota(folder / "workspace.img", workspace)
    workspace.chmod(0o700)
    _bring_bundle(bundles / f"{lease.input_commit}.bundle", task / "base.bundle")
    (task / "spec.json").write_text(json.dumps(lease.spec))
    (task / "spec.json").chmod(0o444)
    if keys is not None:
        secret.mkdir(mode=0o700)
        held = {"taskRun": lease.task_run, "epoch": lease.epoch, "inKey": keys.in_key.hex(), "outKey": keys.out_key.hex()}
        _write_key(secret / "key.json", held)
    _give(folder, uid)


def _give(folder: Path, uid: int | None) -> None:
    if uid is None:
        return
    for inner in (folder / "workspace", folder / "secret", folder / "secret" / "key.json"):
        if inner.exists():
            os.chown(inner, uid, uid, follow_symlinks=False)
    os.chown(folder, 0, uid)  # the sandbox's group may pass through, other sandboxes may not
    folder.chmod(0o710)


def _write_key(path: Path, key: dict[str, str | int | None]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
    with os.fdopen(descriptor, "w") as file:
        json.dump(key, file)


def _bring_bundle(source: Path, target: Path) -> None:
    if not source.exists():
        raise SandboxFailed(f"The input bundle {source} is missing. The step that granted the lease writes it; run that step again.")
    if source.stat().st_mode & stat.S_IROTH:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system
            pass
    shutil.copyfile(source, target)
    target.chmod(0o444)


def _mount_quota(image: Path, mount_point: Path) -> None:
    with image.open("wb") as file:
        file.truncate(profile.WORKSPACE_BYTES)
    features = ["-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", "-m", "0", "-N", str(profile.WORKSPACE_INODES)]
    _run("mkfs.ext4", "-q", "-F", *features, str(image))
    _run("mount", "-o", "loop,nosuid,nodev", str(image), str(mount_point))
    (mount_point / "lost+found").rmdir()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SandboxFailed(f"`{' '.join(command)}` failed with {done.returncode}: {done.stderr.strip()}")


def quota_works(root: Path) -> bool:
    """Try whether a loop image can be mounted here (root, and loop devices)."""
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        return False
    folder = root / f".probe-{os.getpid()}"
    try:
        (folder / "workspace").mkdir(parents=True)
        _mount_quota(folder / "workspace.img", folder / "workspace")
    except (SandboxFailed, OSError):
        return False
    finally:
        remove(folder)
    return True


# -- a marker that outlives us ---------------------------------------------------------------------------------------------


def mark_started(folder: Path) -> None:
    """Record that the program started. A process sandbox that disappears afterwards counts as lost; before, as never started."""
    (folder / _STARTED).touch()


def was_started(folder: Path) -> bool:
    """Say whether ``mark_started`` was called."""
    return (folder / _STARTED).exists()


# -- out -------------------------------------------------------------------------------------------------------------------


def take_handin(folder: Path, handins: Path, lease: UUID) -> Handin:
    """Copy ``workspace/handin`` to ``handins/<lease>`` without following anything that the sandbox planted.

    Only a regular file with one name and at most 64 MiB is taken; all else is refused with the reason. The sandbox must be dead.
    """
    try:
        outer = os.open(folder / "workspace", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return Handin(refused=f"the workspace cannot be opened ({error.strerror})") if folder.exists() else Handin()
    try:
        inner = os.open("handin", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=outer)
    except FileNotFoundError:
        return Handin()
    except OSError as error:  # a symlink (ELOOP), a socket (ENXIO), closed for us (EACCES)
        return Handin(refused=f"the hand-in is not a file that can be opened ({error.strerror})")
    finally:
        os.close(outer)
    with os.fdopen(inner, "rb", buffering=0) as source:
        return _refusal(os.fstat(inner)) or _copy(source.fileno(), handins, lease)


def _refusal(about: os.stat_result) -> Handin | None:
    if not stat.S_ISREG(about.st_mode):
        return Handin(refused="the hand-in is not a regular file")
    if about.st_nlink != 1:
        return Handin(refused=f"the hand-in has {about.st_nlink} names (hard links)")
    if about.st_size > profile.HANDIN_BYTES:
        return Handin(refused=f"the hand-in has {about.st_size} bytes, more than {profile.HANDIN_BYTES}")
    return None


def _copy(source: int, handins: Path, lease: UUID) -> Handin:
    handins.mkdir(mode=0o700, parents=True, exist_ok=True)
    part, digest, size = handins / f"{lease}.part", hashlib.sha256(), 0
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as target:
        while chunk := os.read(source, _CHUNK):
            size += len(chunk)
            if size > profile.HANDIN_BYTES:
                part.unlink()
                return Handin(refused=f"the hand-in grew beyond {profile.HANDIN_BYTES} bytes")
            digest.update(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    part.rename(handins / str(lease))
    return Handin(digest.hexdigest(), size)


# -- away ------------------------------------------------------------------------------------------------------------------


def mounts_under(root: Path) -> list[Path]:
    """List the mount points below a folder, from the kernel's own list."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [Path(line.split()[4].encode().decode("unicode_escape")) for line in lines]
    return [point for point in points if point.is_relative_to(root)]


def remove(folder: Path) -> None:
    """Unmount and remove the directory of an attempt, whatever the sandbox left in it. Nothing to do: nothing happens.

    Raises:
        SandboxFailed: something under it is still in use.
    """
    for point in sorted(mounts_under(folder), reverse=True):
        if subprocess.run(["umount", str(point)], capture_output=True, check=False).returncode:
            _run("umount", "--lazy", str(point))
    if not folder.is_symlink() and not folder.exists():
        return
    if mounts_under(folder):  # never remove a tree under a mount
        raise SandboxFailed(f"{folder} still has something mounted in it.")
    if os.geteuid() != 0:
        subprocess.run(["chmod", "-R", "u+rwX", str(folder)], capture_output=True, check=False)
    _run("rm", "-rf", "--one-file-system", "--", str(folder))
