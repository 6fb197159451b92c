"""What a sealed child cannot do, each beside a control: the same child unsealed can."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from include.worker import child, landlock, seal, seccomp
from include.worker.child import Bounds
from include.worker.errors import NotSealed
from include.worker.seal import DEVICES, Policy
from tests.kit.scale import limit, patience
from tests.worker.sandbox import ROOT, calls, says

HELD = """
import ctypes, fcntl, multiprocessing, os, signal, socket, struct, sys, threading
root, parent = sys.argv[1], int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
def call(*arguments):
    if libc.syscall(*[ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""

# name: what the child tries; exit code 0 if it succeeded. Refused when sealed, possible when not (as root or not, see CONTROLLED).
ATTACKS = {
    "relay by stream": "s = socket.socket(socket.AF_UNIX); s.connect(root + '/run-task/relay.sock')",
    "relay by a pair's datagram": "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); a.sendto(b'x', root + '/run-task/datagram.sock')",
    "relay by a raw pair": "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW); a.connect(root + '/run-task/datagram.sock'); a.send(b'x')",
    "raw pair with flags": "socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)",
    "tipc pair": "socket.socketpair(30, socket.SOCK_SEQPACKET)",
    "abstract socket": "s = socket.socket(socket.AF_UNIX); s.connect('\\0' + root)",
    "secret file": "open(root + '/run-secret/key.json').read()",
    "hand-in": "open(root + '/workspace/handin', 'w')",
    "git hook": "open(root + '/workspace/git/hook', 'w')",
    "base bundle": "open(root + '/run-task/base.bundle', 'rb').read(1)",
    "secret by a link": "os.symlink(root + '/run-secret/key.json', 'l'); open('l').read()",
    "rename out": "open('f', 'w').close(); os.rename('f', root + '/workspace/handin')",
    "hard link in": "os.link(root + '/run-secret/key.json', 'h'); open('h').read()",
    "signal the worker": "os.kill(parent, 0)",
    "worker's environment": "assert open(f'/proc/{parent}/environ', 'rb').read()",
    "worker's memory": "open(f'/proc/{parent}/mem', 'rb')",
    "inherited descriptor": "os.fstat(int(os.environ['HELD']))",
    "x32 call": "call(0x40000000 + 39)",
    "ptrace": "call(101, 16, parent, 0, 0)",
    "packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
    "alg socket": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0)",
    "new namespace": "os.pipe(); call(272, 0x10000000)",
    "namespace by clone": "pid = libc.syscall(56, 0x10000011, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nassert pid > 0",
    "chroot": "os.chroot('.')",
    "mount": "here = os.getcwd().encode(); call(165, b'none', here, b'tmpfs', 0, 0); call(166, here, 2)",  # the control undoes it
    "keyring": "call(250, 0, -3, 0)",
    "io_uring": "call(425, 1, ctypes.create_string_buffer(120))",
    "userfaultfd": "call(323, 1)",
    "bpf": "call(321, 0, ctypes.create_string_buffer(72), 72)",
    "perf": "buffer = ctypes.create_string_buffer(struct.pack('IIQ', 1, 128, 0) + bytes(112)); call(298, buffer, 0, -1, -1, 0)",
    "type into the terminal": "m, s = os.openpty(); os.setsid(); fcntl.ioctl(s, 0x540E, 0); fcntl.ioctl(s, 0x5412, b'x')",
}
UNCONTROLLED = {
    "ptrace",
    "x32 call",
    "io_uring",
    "userfaultfd",
    "bpf",
    "perf",
    "keyring",
    "type into the terminal",
    "alg socket",
    "tipc pair",
    "abstract socket",
}
"""Refused by many kernels and containers even unsealed; their control is a positive one only where the machine allows it."""

ALLOWED = {
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(0))",
    "loopback server": "s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); s.accept()[0].send(b'x'); c.recv(1)",
    "stream pair": "a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'",
    "stream pair with flags": "socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)",
    "sequenced pair": "a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); a.send(b'x'); assert b.recv(1) == b'x'",
    "processes": "import subprocess; subprocess.run(['git', '--version'], check=True, stdout=-3)",
    "multiprocessing": "p = multiprocessing.get_context('fork').Pool(2); assert p.map(abs, [-1, 2]) == [1, 2]; p.terminate()",
    "threads": "t = threading.Thread(target=print); t.start(); t.join()",
    "own files": "os.makedirs('d/e'); open('d/e/f', 'w').write('x'); os.rename('d/e/f', 'd/g'); os.symlink('g', 'd/h'); os.remove('d/g')",
    "temporary files": "import tempfile; tempfile.tempdir = os.environ['HOME']; tempfile.TemporaryFile().write(b'x')",
    "devices": "open('/dev/null', 'w').write('x'); os.urandom(3); open('/dev/zero', 'rb').read(3)",
    "own signals": "signal.signal(signal.SIGUSR1, lambda *_: None); os.kill(os.getpid(), signal.SIGUSR1)",
    "name look-up": "socket.getaddrinfo('127.0.0.1', 80)",
}


@pytest.fixture
def held(sandbox, place: Path):
    """A sandbox with a relay that listens, a secret, a hand-in, and a stand-in for the worker: a process that protected itself."""
    paths = sandbox()
    for folder in (paths.repo, paths.git):
        folder.mkdir()
    paths.key.write_text("secret")
    paths.handin.write_text("handin")
    listeners = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    listeners[0].bind(str(paths.socket))
    listeners[1].bind(f"\0{place}")  # the names of all processes of this machine
    for listener in listeners:
        listener.listen(50)
    datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagram.bind(str(paths.task / "datagram.sock"))
    worker = subprocess.Popen(["sleep", "300"])
    yield paths, worker.pid
    worker.kill()
    worker.wait()
    for listener in (*listeners, datagram):
        listener.close()


def sealed(paths, pid: int, code: str) -> child.Finished:
    policy = Policy(read=(str(paths.toolbox),), write=(str(paths.repo), str(paths.scratch), "/dev/shm", *DEVICES))
    command = [sys.executable, "-I", "-S", "-c", HELD + code, str(paths.task.parent), str(pid)]
    return child.run(paths, Bounds(policy, limit(30), paths.repo, {"HELD": "7"}), command)


def unsealed(paths, pid: int, code: str) -> subprocess.CompletedProcess[bytes]:
    secret = os.open(paths.key, os.O_RDONLY)
    os.set_inheritable(secret, True)
    command = [sys.executable, "-I", "-S", "-c", HELD + code, str(paths.task.parent), str(pid)]
    try:
        return subprocess.run(
            command, cwd=paths.repo, env=dict(os.environ, HELD=str(secret)), capture_output=True, close_fds=False, timeout=patience(30)
        )
    finally:
        os.close(secret)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_sealed_child_cannot(held, apart, name):
    paths, pid = held
    finished = apart(sealed, paths, pid, ATTACKS[name])
    assert finished.exit_code == 1, (finished.exit_code, finished.err.decode()[-500:])
    assert b"Error" in finished.err
    for path in paths.repo.iterdir():
        path.unlink()
    control = unsealed(paths, pid, ATTACKS[name])
    print(
        f"{name}: sealed refused ({finished.err.decode().strip().splitlines()[-1]}); unsealed {'did it' if control.returncode == 0 else 'refused too'}"
    )
    if name not in UNCONTROLLED:
        assert control.returncode == 0, control.stderr.decode()[-500:]


FILTERED = """
import socket, sys
from include.worker import seccomp, syscalls
if sys.argv[1] == "datagrams only":  # as it was
    refuse = [(seccomp._LOAD, 0, 0, 24), (seccomp._AND, 0, 0, 15), (seccomp._EQUAL, 0, 1, socket.SOCK_DGRAM), seccomp._refuse(1), seccomp._answer(0x7FFF0000)]
    seccomp.program = lambda column, architecture: [
        (seccomp._LOAD, 0, 0, 0), *seccomp._rule(seccomp._SOCKETPAIR[column], refuse), seccomp._answer(0x7FFF0000)]
syscalls.prctl(syscalls.SET_NO_NEW_PRIVS, 1)
seccomp.restrict()
for type_ in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
    try:
        socket.socketpair(socket.AF_UNIX, type_)
        print(type_.name)
    except PermissionError:
        pass
"""


@pytest.mark.parametrize(
    ("filter_", "pairs"),
    [
        ("as it is", ["SOCK_STREAM", "SOCK_SEQPACKET"]),
        ("datagrams only", ["SOCK_STREAM", "SOCK_RAW", "SOCK_SEQPACKET"]),
    ],
)
def test_control_a_filter_that_refuses_datagrams_only_lets_a_raw_pair_through(filter_: str, pairs: list[str]) -> None:
    command = [sys.executable, "-c", FILTERED, filter_]
    assert subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split() == pairs


@pytest.mark.parametrize("name", ALLOWED)
def test_a_sealed_child_can(held, apart, name):
    paths, pid = held
    finished = apart(sealed, paths, pid, ALLOWED[name])
    assert finished.exit_code == 0, finished.err.decode()[-800:]


def test_the_protected_worker_cannot_be_read(held, toolbox):
    """Given a process that protected itself, another of the same uid without privileges cannot read it; one that did not, it can."""
    if os.getuid() != 0:
        pytest.skip("needs root, to make two processes of another uid")
    drop = ["setpriv", "--reuid=29998", "--regid=29998", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"]
    code = "import sys, time\nsys.path.insert(0, sys.argv[1])\nfrom include.worker import child\n{}\nprint('ready', flush=True)\ntime.sleep(60)"
    readable = {}
    for name, line in (("protected", "child.protect()"), ("plain", "pass")):
        command = [*drop, "/usr/bin/python3", "-I", "-S", "-c", code.format(line), str(toolbox / "worker.pyz")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={"CANARY": "1", "PATH": "/usr/bin"})
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        read = subprocess.run([*drop, "cat", f"/proc/{process.pid}/environ"], capture_output=True)
        readable[name] = b"CANARY" in read.stdout
        process.kill()
        process.wait()
        process.stdout.close()
    assert readable == {"protected": False, "plain": True}


def sealed_beside_a_canary(paths, pid: int, code: str) -> child.Finished:
    os.environ["AIRLOCK_CANARY"] = "secret"
    try:
        return sealed(paths, pid, code)
    finally:
        del os.environ["AIRLOCK_CANARY"]


def test_environment_is_from_nothing(held, apart):
    paths, pid = held
    finished = apart(sealed_beside_a_canary, paths, pid, "print(sorted(os.environ))")
    assert finished.out.split() == b"['HELD', 'HOME', 'LC_ALL', 'PATH']".split()


def test_limits(held, apart):
    paths, pid = held
    finished = apart(sealed, paths, pid, "import resource\nfor n in (4, 0, 1, 7, 9): print(n, resource.getrlimit(n)[1])")
    limits = dict(map(int, line.split()) for line in finished.out.decode().splitlines())
    assert limits == {4: 0, 0: 3600, 1: 1024**3, 7: 512, 9: 4 * 1024**3}


def test_nothing_outlives_a_run(held, apart):
    """Given a child that daemonises itself three times, in sessions of its own."""
    paths, _ = held
    code = textwrap.dedent("""
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    open(f"alive-{os.getpid()}", "w").close()
                    while True: signal.pause()
                os._exit(0)
        import time; time.sleep(0.5)
    """)
    before = apart(child.descendants)
    script = f"import sys\nsys.path.insert(0, {str(paths.program)!r})\nfrom include.worker import child\nfrom include.worker.paths import Paths\nfrom include.worker.seal import *\n"
    script += f"import pathlib\nchild.protect()\npaths = Paths(pathlib.Path({str(paths.toolbox)!r}), *map(pathlib.Path, {[str(path) for path in paths[1:]]!r}))\n"
    script += f"p = Policy(write=({str(paths.repo)!r}, *DEVICES))\n"
    script += f"print(child.run(paths, child.Bounds(p, {limit(20)}, paths.repo), [sys.executable, '-I', '-S', '-c', {HELD + code!r}, '/', '1']).exit_code)"
    run = apart(subprocess.run, [sys.executable, "-I", "-S", "-c", script], capture_output=True, text=True, timeout=patience(60))
    assert run.stdout.strip() == "0", run.stderr
    daemons = [int(path.name.partition("-")[2]) for path in paths.repo.glob("alive-*")]
    assert len(daemons) == 3 and not [each for each in daemons if Path(f"/proc/{each}").exists()]
    assert apart(child.descendants) == before


def stopped(paths, policy: Policy, command: list[str], after_s: float) -> child.Finished:
    stop = threading.Event()
    threading.Timer(after_s, stop.set).start()
    return child.run(paths, Bounds(policy, limit(60), paths.repo, stop=stop), command)


def test_a_run_has_an_end(held, apart):
    paths, _ = held
    policy = Policy(write=(str(paths.repo), *DEVICES))
    started = time.monotonic()
    command = [sys.executable, "-I", "-S", "-c", "import os, time\nif os.fork() == 0: os.setsid()\ntime.sleep(1000)"]
    assert apart(child.run, paths, Bounds(policy, 1, paths.repo), command).exit_code is None
    assert apart(stopped, paths, policy, command, 0.5).exit_code is None
    assert time.monotonic() - started < patience(10)
    flood = apart(child.run, paths, Bounds(policy, limit(60), paths.repo, keep=1000), ["head", "-c", "50000000", "/dev/zero"])
    assert (flood.exit_code, len(flood.out)) == (0, 1000)


def test_what_cannot_be_sealed_is_not_run(monkeypatch):
    monkeypatch.setattr(seccomp, "machine", lambda: "vax")
    monkeypatch.setattr(seal, "_limit", lambda _: None)
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    with pytest.raises(OSError, match="vax"):
        seccomp.restrict()
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:  # no-new-privs stays on, so in a process of its own
        try:
            seal.apply(Policy())
        except NotSealed as error:
            os.write(writer, str(error).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert b"was not run" in os.read(reader, 1000)
    assert "no Landlock" in seal.strength()


def test_the_filters_of_both_machines_are_well_formed():
    """Every jump stays inside, and the last instruction returns."""
    for column, architecture in seccomp._MACHINES.values():
        program = seccomp.program(column, architecture)
        assert program[-1] == (0x06, 0, 0, 0x7FFF0000) and len(program) < 4096
        for at, (code, taken, other, _) in enumerate(program):
            assert code not in (0x15, 0x35, 0x45) or at + 1 + max(taken, other) < len(program)


WITHOUT_LANDLOCK = """
import ctypes, struct
from include.worker import syscalls
code = b"".join(struct.pack("=HBBI", *each) for each in [(0x20, 0, 0, 0), (0x15, 0, 1, 444), (6, 0, 0, 0x50026), (6, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))
syscalls.prctl(38, 1)
syscalls.prctl(22, 2, ctypes.byref(Program(4, ctypes.cast(buffer, ctypes.c_void_p).value)))
"""
REACH = """
import os, socket
def test_reach():
    try:
        socket.socket(socket.AF_UNIX).connect({path!r})
    except PermissionError:
        return
    assert False, "reached the relay"
"""


def test_without_landlock_it_says_so_and_the_relay_stays_out_of_reach(attempt, place):
    """Given a kernel without Landlock (a filter answers ENOSYS to its first call)."""
    test = REACH.format(path=str(place / "run-task" / "relay.sock"))
    run = attempt([calls(("run_tests", {})), says("done")], files={"test_reach.py": test})
    run.start(before=WITHOUT_LANDLOCK)
    assert run.wait() == 0
    assert "no Landlock" in run.broker.of("progress")[0]["payload"]["step"]
    assert json.loads(next(run.results())["content"])["passed"] == 1
