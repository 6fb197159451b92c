"""Unix sockets by long paths, and who is at the other end."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def short(path: Path) -> Iterator[str]:
    """Give a name for a socket's path that fits in 108 bytes however deep its folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def listen(path: Path, mode: int, backlog: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Bind a listening socket; what was there is replaced.

    Args:
        path: of the socket; its folder must exist.
        mode: permission bits of the socket.
        backlog: connections that may wait.
        kind: SOCK_STREAM or SOCK_SEQPACKET.
    """
    listener = socket.socket(socket.AF_UNIX, kind)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        with short(path) as name:
            listener.bind(name)
    finally:
        os.umask(before)
    path.chmod(mode)
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


def listen_seqpacket(path: Path) -> socket.socket:
    """Bind a control socket of mode 0600."""
    return listen(path, 0o600, 4, socket.SOCK_SEQPACKET)


def connect_seqpacket(path: Path) -> socket.socket:
    """Connect to a control socket, without waiting for one that does not accept. Raises OSError."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)
    try:
        with short(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        raise
    return connection


def peer_uid(connection: socket.socket) -> int:
    """Ask for the user at the other end, as the kernel says."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
