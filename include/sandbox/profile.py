"""The one table of the hardened profile, and the two ways it is spelled: a Docker create body and a bubblewrap command line.

Nothing else decides what a sandbox may do. A test compares ``docker inspect`` of a live container with this table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from include.sandbox.models import Spec

GIB: Final = 1024**3
MIB: Final = 1024**2

UID: Final = 10001  # inside every sandbox; outside too, for containers of a warden that runs as root
HOSTNAME: Final = "worker"
PIDS: Final = 256
MEMORY_BYTES: Final = GIB  # with swap: none
NANO_CPUS: Final = 10**9
OPEN_FILES: Final = 1024
FILE_BYTES: Final = GIB
ADDRESS_SPACE_BYTES: Final = 4 * GIB  # a process; the process sandbox has no total
TMP_BYTES: Final = 256 * MIB
TMP_INODES: Final = "20k"
SHM_BYTES: Final = 64 * MIB
STOP_S: Final = 2
LOG_BYTES: Final = MIB  # kept as evidence
WORKSPACE_BYTES: Final = GIB  # where the quota is hard (loop ext4)
WORKSPACE_INODES: Final = 100_000
HANDIN_BYTES: Final = 64 * MIB
ENVIRONMENT: Final = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}
WORKDIR: Final = "/workspace"
OWNER_LABEL: Final = "airlock.owner"
LEASE_LABEL: Final = "airlock.lease"


@lru_cache(maxsize=1)
def seccomp_text() -> str:
    """Read the text of ``seccomp.json``: an allow-list of system calls in Docker's format."""
    return (Path(__file__).parent / "seccomp.json").read_text()


def program(spec: Spec) -> list[str]:
    """Make the command inside: the worker under a timeout of its own, which is the last line when everything outside is dead."""
    return ["timeout", "-k", "5", str(spec.seconds), spec.python, "-I", "-S", "/opt/airlock/worker.pyz", spec.kind]


def docker_body(spec: Spec, image: str, owner: str) -> dict[str, Any]:
    """Make the body of ``POST containers/create``.

    Args:
        spec: what runs.
        image: of the container.
        owner: whose containers these are; a warden sweeps only its own.
    """
    return {
        "Image": image,
        "Cmd": program(spec),
        "Entrypoint": [],
        "User": f"{spec.uid}:{spec.uid}",
        "Hostname": HOSTNAME,
        "WorkingDir": WORKDIR,
        "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()],
        "Labels": {OWNER_LABEL: owner, LEASE_LABEL: str(spec.lease)},
        "Tty": False,
        "OpenStdin": False,
        "StopTimeout": STOP_S,
        "NetworkDisabled": True,
        "HostConfig": docker_host_config(spec),
    }


def docker_host_config(spec: Spec) -> dict[str, Any]:
    """Make the part of the create body that holds the sandbox."""
    return {
        "NetworkMode": "none",
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true", f"seccomp={seccomp_text()}"],
        "PidsLimit": PIDS,
        "Memory": MEMORY_BYTES,
        "MemorySwap": MEMORY_BYTES,
        "NanoCpus": NANO_CPUS,
        "Ulimits": [
            {"Name": "nofile", "Soft": OPEN_FILES, "Hard": OPEN_FILES},
            {"Name": "core", "Soft": 0, "Hard": 0},
            {"Name": "fsize", "Soft": FILE_BYTES, "Hard": FILE_BYTES},
        ],
        "Init": True,
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,noexec,size={TMP_BYTES},nr_inodes={TMP_INODES},mode=1777"},
        "IpcMode": "private",
        "ShmSize": SHM_BYTES,
        "Privileged": False,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}},
        "Mounts": [
            {
                "Type": "bind",
                "Source": str(m.source),
                "Target": m.target,
                "ReadOnly": not m.writable,
                "BindOptions": {"Propagation": "rprivate"},
            }
            for m in spec.mounts
        ],
    }


# -- bubblewrap ------------------------------------------------------------------------------------------------------------

# It says that it stands, waits for a word, and only then becomes the program: a warden that is killed in between has not
# started anything, since the word never comes (the death signal alone let 14 of 100 survive).
HANDSHAKE: Final = 'echo ready; read -r word && [ "$word" = go ] && exec "$@" </dev/null; exit 97'


def bubblewrap_command(spec: Spec, drop: bool, seccomp_fd: int) -> list[str]:
    """Make the command line of a process sandbox.

    Args:
        spec: what runs; ``spec.uid`` is the slot's uid when ``drop`` is set.
        drop: leave root for ``spec.uid`` first. Must be set when root asks: bubblewrap as root is no sandbox.
        seccomp_fd: a descriptor that holds the compiled filter and is inherited.
    """
    dropped = _drop(spec.uid) if drop else []
    inside = [*_namespaces(), *_root_filesystem(), *_mounts(spec), *_READ_ONLY, *_environment(), "--seccomp", str(seccomp_fd)]
    return [*dropped, *_limits(), *inside, "--", "/bin/sh", "-c", HANDSHAKE, "sh", *program(spec)]


# Bubblewrap's own root and /dev are small file systems in memory that the inner uid could fill: closed once all is mounted.
_READ_ONLY: Final = ("--remount-ro", "/dev", "--remount-ro", "/")


def _drop(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all",
            "--reset-env", "--"]  # fmt: skip


def _limits() -> list[str]:
    return [
        "prlimit",
        f"--nproc={PIDS}",
        "--core=0",
        f"--fsize={FILE_BYTES}",
        f"--nofile={OPEN_FILES}",
        f"--as={ADDRESS_SPACE_BYTES}",
        "--",
    ]


def _namespaces() -> list[str]:
    return ["bwrap", "--unshare-user", "--disable-userns", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
            "--uid", str(UID), "--gid", str(UID), "--hostname", HOSTNAME]  # fmt: skip


def _root_filesystem() -> list[str]:
    arguments = ["--ro-bind", "/usr", "/usr"]
    for name in ("bin", "sbin", "lib", "lib32", "lib64"):
        path = f"/{name}"
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path).lstrip("/"), path]
        elif os.path.isdir(path):
            arguments += ["--ro-bind", path, path]
    for path in ("/etc/ssl", "/etc/alternatives", "/etc/ld.so.cache"):
        arguments += ["--ro-bind-try", path, path]
    return [*arguments, "--proc", "/proc", "--dev", "/dev", "--size", str(SHM_BYTES), "--tmpfs", "/dev/shm", "--size", str(TMP_BYTES),
            "--tmpfs", "/tmp"]  # fmt: skip


def _mounts(spec: Spec) -> Sequence[str]:
    return [word for m in spec.mounts for word in ("--bind" if m.writable else "--ro-bind", str(m.source), m.target)]


def _environment() -> list[str]:
    pairs = [word for name, value in ENVIRONMENT.items() for word in ("--setenv", name, value)]
    return ["--chdir", WORKDIR, "--clearenv", *pairs]
