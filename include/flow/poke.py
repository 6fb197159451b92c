"""A word to the scheduler that there is something to do: without it, it looks twice a second.

Only a hint, by a datagram to a socket in ``home/run``: what there is to do stands in Airflow's database. Lost, forged or sent in vain, it
changes nothing but when the scheduler looks.
"""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

from include.settings import settings


def _address() -> Path:
    return settings().run_dir / "scheduler.sock"


def listen() -> socket.socket | None:
    """The scheduler's end; None where it cannot be made (another scheduler's is replaced: the last one started hears)."""
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        heard.setblocking(False)
        _address().unlink(missing_ok=True)
        heard.bind(str(_address()))
    except OSError:
        heard.close()
        return None
    return heard


def hear(heard: socket.socket) -> None:
    """Take all words that have come."""
    with contextlib.suppress(BlockingIOError):
        while True:
            heard.recv(1)


def poke() -> None:
    """Say it. A scheduler that is away, elsewhere or has enough such words unread is no matter."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mouth:
        mouth.setblocking(False)
        mouth.sendto(b"!", str(_address()))
