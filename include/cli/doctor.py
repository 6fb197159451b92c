"""What was left behind: containers, processes, mounts, sockets, streams, leases, locks and reservations; and the removal of a home."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter

from include.database.unit_of_work import transaction
from include.errors import Unavailable
from include.local import control
from include.local import leftovers as processes
from include.sandbox import folders, workspace
from include.sandbox.leftovers import leftovers as of_sandboxes
from include.settings import Settings
from include.views import leftovers as left


def leftovers(settings: Settings) -> dict[str, int]:
    """Count what is there although nothing needs it. A goal that is at work needs its own things; they are not counted.

    While all is down there are no streams and leases to ask for, and every process of ours counts.
    """
    found = Counter(of_sandboxes(settings))
    found.update(streams=0, leases=0, reservations=0, locks=len(list(settings.mirrors_dir.rglob("*.lock"))))
    if control.supervisor_pid(settings.home) is None:
        found.update(processes=len(processes.find(settings.home)))
        return dict(found)
    with transaction("cli") as connection:  # whose own sessions are seen, which a viewer does not see
        known = left.picture(connection, settings.call_s)
    stray = [key for key in streams(settings) if key.split(":")[1] not in known.live_task_runs]
    found.update(streams=len(stray), leases=known.leases, locks=known.locks, reservations=known.reservations)
    return dict(found)


def streams(settings: Settings) -> list[str]:
    """List the streams of task runs.

    Raises:
        Unavailable: the stream server does not answer.
    """
    import redis

    try:
        return [key.decode() for key in redis.Redis.from_url(settings.valkey_url("broker"), socket_timeout=3).scan_iter("task:*")]
    except redis.ConnectionError as error:
        raise Unavailable("The stream server does not answer. Look at `./airlock status`.") from error


def delete_home(settings: Settings) -> None:
    """Delete the folder of all state. Everything must be down."""
    sandboxes = folders.root(settings)
    for point in workspace.mounts_under(sandboxes):
        subprocess.run(["umount", "--lazy", str(point)], check=False)
    for folder in (sandboxes, settings.home):
        shutil.rmtree(folder, ignore_errors=True)
