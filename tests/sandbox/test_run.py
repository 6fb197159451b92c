"""A program runs in a sandbox of either engine: hand-in, evidence, profile, and what it cannot reach."""

from __future__ import annotations

import hashlib
import json
import subprocess

import pytest

from include.sandbox import profile
from include.sandbox.leftovers import leftovers
from tests.conftest import wait_until
from tests.kit.scale import limit
from tests.sandbox.conftest import Node

NOTHING = {"containers": 0, "processes": 0, "mounts": 0, "sockets": 0, "directories": 0}


def test_a_run_gives_handin_and_evidence(node: Node) -> None:
    node.program("""
import json, os, sys
key = json.load(open("/run/secret/key.json")); os.unlink("/run/secret/key.json")
spec = json.load(open("/run/task/spec.json"))
facts = {"key": sorted(key), "epoch": key["epoch"], "spec": spec, "secret": os.listdir("/run/secret"), "task": sorted(os.listdir("/run/task")),
         "argv": sys.argv[1:], "env": sorted(os.environ), "bundle": open("/run/task/base.bundle").read(), "uid": os.getuid(), "cwd": os.getcwd()}
open("/workspace/handin", "w").write(json.dumps(facts))
print("it is done"); sys.exit(7)
""")
    lease, name = node.lease()
    node.run(name)
    evidence = node.ended(lease)
    data = (node.settings.handins_dir / lease).read_bytes()
    facts = json.loads(data)
    assert evidence["exit_code"] == 7 and evidence["because"] == "" and not evidence["out_of_memory"]
    assert b"it is done" in evidence["log"] and b"ready" not in evidence["log"]
    assert evidence["handin_sha256"] == hashlib.sha256(data).hexdigest() and evidence["handin_bytes"] == len(data)
    assert facts["key"] == ["epoch", "inKey", "outKey", "taskRun"] and facts["epoch"] == 1 and facts["secret"] == []
    assert facts["spec"] == {"test_timeout_s": 7} and facts["task"] == ["base.bundle", "relay.sock", "spec.json"]
    assert facts["argv"] == ["work"] and facts["bundle"] == "not really a bundle" and facts["uid"] == 10001 and facts["cwd"] == "/workspace"
    assert set(facts["env"]) <= {"PATH", "HOME", "HOSTNAME", "PWD", "LC_CTYPE"}
    row = node.one("SELECT started_at FROM leases WHERE id = %s", lease)
    assert row and row["started_at"] is not None
    assert node.one("SELECT 1 AS one FROM attempt_keys WHERE lease = %s", lease) is None
    assert leftovers(node.settings) == NOTHING


def test_verify_gets_no_key_and_no_socket(node: Node) -> None:
    node.program(
        "import os; open('/workspace/handin','w').write(repr((os.path.exists('/run/secret/key.json'), sorted(os.listdir('/run/task')))))"
    )
    lease, name = node.lease("verify")
    node.run(name)
    assert node.ended(lease)["exit_code"] == 0
    assert (node.settings.handins_dir / lease).read_text() == "(False, ['base.bundle', 'spec.json'])"


def test_the_warden_is_faster_than_the_sandboxs_own_timeout(node: Node) -> None:
    node.program("import time; time.sleep(60)")
    lease, name = node.lease("verify", seconds=limit(4))
    node.run(name)
    evidence = node.ended(lease)
    assert evidence["exit_code"] == 137 and evidence["because"] == "expired"


PROBE = """
import json, os, socket, ctypes
def can(act):
    try:
        act(); return True
    except BaseException as e:
        return False
libc = ctypes.CDLL(None, use_errno=True)
def call(nr, *a):
    if libc.syscall(nr, *a) < 0: raise OSError(ctypes.get_errno(), "x")
def tcp(host, port):
    socket.create_connection((host, port), 2).close()
def write(path):
    def act():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return act
facts = {
 "host_port": can(lambda: tcp(HOST, PORT)), "udp_route": can(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("192.0.2.1", 9))),
 "write_root": can(write("/x")), "write_usr": can(write("/usr/x")), "write_task": can(write("/run/task/x")), "write_run": can(write("/run/x")),
 "write_toolbox": can(write("/opt/airlock/x")), "core_pattern": can(write("/proc/sys/kernel/core_pattern")), "etc_shadow": can(lambda: open("/etc/shadow")),
 "unshare": can(lambda: call(272, 0x10000000)), "ptrace": can(lambda: call(101, 0, 0, 0, 0)), "io_uring": can(lambda: call(425, 1, ctypes.create_string_buffer(120))),
 "keyctl": can(lambda: call(250, 0, -3, 1)), "packet": can(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)), "vsock": can(lambda: socket.socket(40, 1)),
 "raw_pair": can(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW)), "datagram_pair": can(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)),
 "stream_pair": can(socket.socketpair), "sequenced_pair": can(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)),
 "docker": can(lambda: os.stat("/var/run/docker.sock")), "processes": len([p for p in os.listdir("/proc") if p.isdigit()]) > 8,
 "workspace": can(write("/workspace/x")), "tmp": can(write("/tmp/x")), "unix": can(lambda: socket.socket(socket.AF_UNIX)),
 "thread": can(lambda: __import__("threading").Thread(target=int).start()), "loopback": can(lambda: socket.create_server(("127.0.0.1", 0)).close()),
}
open("/workspace/handin", "w").write(json.dumps(facts))
"""
ALLOWED = {"workspace", "tmp", "unix", "thread", "loopback", "stream_pair", "sequenced_pair"}


def test_what_it_reaches_and_what_not(node: Node) -> None:
    port = node.settings.valkey_port
    node.program(PROBE.replace("HOST", '"127.0.0.1"').replace("PORT", str(port)))
    lease, name = node.lease("verify")
    node.run(name)
    assert node.ended(lease)["exit_code"] == 0
    facts = json.loads((node.settings.handins_dir / lease).read_text())
    assert {what for what, reached in facts.items() if reached} == ALLOWED


def test_control_the_probe_does_reach_out_when_nothing_holds_it(node: Node, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The same probe on the bare machine, or in a container with nothing of the profile, reaches what a sandbox must not."""
    text = PROBE.replace("HOST", '"127.0.0.1"').replace("PORT", str(node.settings.valkey_port)).replace("/workspace", str(tmp_path))
    for harm in ('write("/usr/x")', 'write("/x")', "call(272, 0x10000000)"):
        text = text.replace(harm, "1 / 0" if harm.startswith("call") else "lambda: 1 / 0")
    command = ["python3", "-I", "-S", "-c", text]
    reached = {"host_port", "udp_route", "ptrace", "io_uring", "packet", "raw_pair", "datagram_pair", "docker", "etc_shadow", "keyctl"}
    if node.engine == "docker":
        mounted = ["-v", f"{tmp_path}:{tmp_path}", "-v", "/var/run/docker.sock:/var/run/docker.sock"]
        naked = ["--network=host", "--security-opt", "seccomp=unconfined"]
        command = ["docker", "run", "--rm", *naked, *mounted, "airlock/worker:latest", *command]
    else:
        reached |= {"core_pattern", "processes"}
    subprocess.run(command, check=True, capture_output=True)
    facts = json.loads((tmp_path / "handin").read_text())
    assert reached <= {what for what, done in facts.items() if done}


def test_inspect_equals_the_profile(node: Node) -> None:
    if node.engine != "docker":
        pytest.skip("only containers can be inspected")
    node.program("import time; time.sleep(30)")
    _, name = node.lease()
    node.run(name)
    about = json.loads(subprocess.check_output(["docker", "inspect", name]))[0]
    host, config = about["HostConfig"], about["Config"]
    assert about["State"]["Running"] and config["User"] == "10001:10001" and config["Hostname"] == "worker" and config["StopTimeout"] == 2
    assert config["Env"] == ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp"] and config["Cmd"][:3] == ["timeout", "-k", "5"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"], host["Privileged"]) == (
        "none",
        True,
        ["ALL"],
        None,
        False,
    )
    assert host["SecurityOpt"] == ["no-new-privileges:true", f"seccomp={profile.seccomp_text()}"]
    assert (host["PidsLimit"], host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (256, 1024**3, 1024**3, 10**9)
    assert {u["Name"]: u["Hard"] for u in host["Ulimits"]} == {"nofile": 1024, "core": 0, "fsize": 1024**3}
    assert host["Init"] and host["IpcMode"] == "private" and host["ShmSize"] == 64 * 1024**2 and host["RestartPolicy"]["Name"] == "no"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "1"}}
    assert host["Binds"] is None and host["Devices"] in (None, []) and host["VolumesFrom"] is None and host["PidMode"] == ""
    mounts = {m["Destination"]: (m["RW"], m["Propagation"]) for m in about["Mounts"]}
    assert mounts == {
        "/opt/airlock": (False, "rprivate"), "/run/task": (False, "rprivate"), "/workspace": (True, "rprivate"), "/run/secret": (True, "rprivate"),
    }  # fmt: skip


def test_a_log_is_bounded_and_keeps_its_end(node: Node) -> None:
    node.program("import sys\nfor i in range(60): sys.stdout.write('x' * 100000)\nprint('the last words')")
    lease, name = node.lease("verify")
    node.run(name)
    written = node.ended(lease)["log"]
    assert len(written) <= profile.LOG_BYTES and written.endswith(b"the last words\n")


def test_memory_is_bounded(node: Node) -> None:
    node.program("x = []\nwhile True: x.append(bytearray(64 << 20))")
    lease, name = node.lease("verify")
    node.run(name)
    evidence = node.ended(lease)
    assert evidence["exit_code"] != 0
    assert evidence["out_of_memory"] or b"MemoryError" in evidence["log"]


def test_the_workspace_has_a_quota(node: Node) -> None:
    node.program("""
import os
try:
    for i in range(40):
        with open(f"/workspace/f{i}", "wb") as f: f.write(bytes(64 << 20))
except OSError as e: print("errno", e.errno)
""")
    lease, name = node.lease("verify")
    node.run(name)
    assert b"errno 28" in node.ended(lease, 60)["log"]


def test_calls_that_are_not_offered(node: Node) -> None:
    node.program("import time; time.sleep(30)")
    _, name = node.lease()
    assert node.call("POST", "/containers/create", params={"name": "airlock-nobody-1"}).status_code == 404
    node.run(name)
    assert node.call("POST", "/containers/create", params={"name": name}).status_code == 409
    assert node.call("POST", f"/containers/{name}/start").status_code == 304
    about = node.call("GET", f"/containers/{name}/json").json()
    assert about["State"]["Running"] and about["Config"]["Tty"] is False
    for method, path in (("POST", f"/containers/{name}/kill"), ("POST", f"/containers/{name}/stop"), ("DELETE", f"/containers/{name}"),
                         ("POST", f"/containers/{name}/exec"), ("GET", "/containers/json"), ("POST", "/build"), ("GET", f"/containers/{name}/archive")):  # fmt: skip
        answer = node.call(method, path)
        assert answer.status_code == 403 and "warden" in answer.json()["message"], (method, path)
    assert wait_until("it still runs", lambda: node.call("GET", f"/containers/{name}/json").json()["State"]["Running"])
