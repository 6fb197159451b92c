"""Start, find, ask and stop the supervisor of this home, from the command line's side."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from include.errors import BadInput, Unavailable
from include.local import checks, keys, leftovers, modes, runtime
from include.local.child import child_environment, open_log
from include.local.models import Known
from include.local.patience import Patience
from include.settings import ROOT, Settings, load

Say = Callable[[str], None]
STILL_S = 30.0


def supervisor_pid(home: Path) -> int | None:
    """Find the pid of the live supervisor; None when none holds the lock (a pid file alone proves nothing)."""
    lock = home / "run" / "supervisor.lock"
    if not lock.exists():
        return None
    with lock.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except OSError:
            return state(home).pid


def state(home: Path) -> Known:
    """Read what the supervisor last wrote."""
    path = home / "run" / "state.json"
    return Known.model_validate_json(path.read_bytes()) if path.exists() else Known()


def up(home: Path, say: Say, offline: bool = False, patience_s: float = 120.0, supervisor: str = "include.local.supervisor") -> Settings:
    """Start everything, or find it running, and wait until all of it answers.

    Args:
        home: folder of all state.
        say: called with each line a person should see.
        offline: use the offline model although there is a key.
        patience_s: seconds to wait while nothing moves (``include/local/patience.py``): on a loaded machine all takes longer.
        supervisor: module of the supervisor that is started.

    Raises:
        BadInput: the machine lacks something; the message says what to do.
        Unavailable: a process does not come up; the message names it and shows the end of its log.
    """
    starter = None
    modes.close(home)
    if supervisor_pid(home) is not None:
        say("Airlock is already up." if state(home).state == "ready" else "Airlock is already starting.")
    else:
        starter = _begin(home, say, offline, supervisor)
    _wait(home, say, patience_s, starter)
    return load(home)


def _begin(home: Path, say: Say, offline: bool, supervisor: str) -> subprocess.Popen[bytes]:
    settings = load(home)
    for words in checks.require(settings):
        say(words)
    for folder in (home / "run", home / "logs"):
        folder.mkdir(exist_ok=True, mode=0o700)
    runtime.update(home, offline=offline or not keys.holders(settings.keys_dir), **_endpoint(home))
    (home / "run" / "state.json").unlink(missing_ok=True)
    log = open_log(home, "supervisor")
    with log:
        return subprocess.Popen(
            [sys.executable, "-m", supervisor], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=child_environment(home) | {leftovers.MARK: ""}, start_new_session=True,
        )  # fmt: skip


def _endpoint(home: Path) -> dict[str, str]:
    given = os.environ.get("ANTHROPIC_BASE_URL", "")
    return {"anthropic_base_url": given or runtime.read(home).get("anthropic_base_url", "")}


def _wait(home: Path, say: Say, patience_s: float, starter: subprocess.Popen[bytes] | None) -> None:
    patience, told = Patience(patience_s), set[str]()
    while not (why := patience.is_over()):
        known = state(home)
        lasted = time.monotonic() - patience.began
        for line in (*_news(known, told), *_still(known, lasted, told)):
            say(line)
        if known.state == "ready":
            say(f"All is up after {lasted:.0f} s.")
            return
        if starter is not None and starter.poll() is not None and supervisor_pid(home) is None:
            raise Unavailable(f"The supervisor ended at once: {log_tail(home, 'supervisor')}")
        _refuse_the_hopeless(home, known)
        patience.look(*_coming(home, known, starter))
        time.sleep(0.2)
    waiting = list(state(home).waiting) or ["supervisor"]
    raise Unavailable(f"{why}: {', '.join(waiting)}. Look at `./airlock logs {waiting[0]}`, then run `./airlock up` again.")


def _coming(home: Path, known: Known, starter: subprocess.Popen[bytes] | None) -> tuple[object, list[int]]:
    """Collect what shows that something moves: states and the length of logs, and the pids of what is still coming."""
    waiting = known.waiting
    logs = [path.stat().st_size for name in waiting if (path := home / "logs" / f"{name}.log").exists()]
    pids = [process.pid for process in waiting.values() if process.pid]
    if not known.processes and starter is not None:
        pids.append(starter.pid)
    return ({name: (process.state, process.pid) for name, process in known.processes.items()}, logs), pids


def _still(known: Known, lasted: float, told: set[str]) -> Iterator[str]:
    """Tell every half a minute what is still coming."""
    if lasted >= STILL_S and f"{lasted // STILL_S}" not in told:
        told.add(f"{lasted // STILL_S}")
        yield f"  still coming after {lasted:.0f} s: {', '.join(known.waiting) or 'supervisor'}"


def _news(known: Known, told: set[str]) -> Iterator[str]:
    lines = list(known.notes)
    lines += [f"  {name} is up" for name, process in known.processes.items() if process.is_up]
    for line in lines:
        if line not in told:
            told.add(line)
            yield line


def _refuse_the_hopeless(home: Path, known: Known) -> None:
    for name, process in known.processes.items():
        if process.falls >= 4 and process.state == "crashed":
            raise Unavailable(
                f"{name} does not start (exit {process.exit}): {log_tail(home, name)} See `./airlock logs {name}`, then `./airlock down`."
            )


def log_tail(home: Path, name: str, lines: int = 3) -> str:
    """Read the last lines of a process's log, as one."""
    path = home / "logs" / f"{name}.log"
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4000))
        return " / ".join(file.read().decode(errors="replace").strip().splitlines()[-lines:])[-600:]


def down(home: Path, say: Say, patience_s: float = 90.0) -> int:
    """Revoke what is at work, stop everything, and check that nothing is left.

    Returns:
        How many processes outlived the supervisor and had to be stopped apart (0 in a clean stop).

    Raises:
        Unavailable: the supervisor does not end.
    """
    pid = supervisor_pid(home)
    if pid is None:
        say("Airlock was not up.")
    else:
        os.kill(pid, signal.SIGTERM)
        _wait_for_the_end(home, pid, patience_s)
    stray = leftovers.stop(home)
    say(f"Stopped{f'; {stray} processes of an earlier run were stopped too' if stray else ''}. Nothing is left running.")
    return stray


def _wait_for_the_end(home: Path, pid: int, patience_s: float) -> None:
    end = time.monotonic() + patience_s
    while supervisor_pid(home) is not None:
        if time.monotonic() > end:
            raise Unavailable(
                f"The supervisor (pid {pid}) does not stop. Look at `./airlock logs supervisor`, kill it, and run `./airlock down` again."
            )
        time.sleep(0.1)


def require_up(home: Path) -> Settings:
    """Read the settings of a home in which Airlock runs.

    Raises:
        BadInput: nothing runs in this home.
    """
    if supervisor_pid(home) is None:
        raise BadInput("home", f"nothing runs in {home}", "Run `./airlock up` first.")
    return load(home)
