"""The island: what the zipapp loads, and that it says the same as the other side's models."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from include.messages.models import FROM_WORKER, IN_PAYLOADS, OUT_PAYLOADS
from include.sandbox import folders
from include.sandbox import toolbox as toolbox_module
from include.settings import Settings
from include.worker import envelope, strict_json
from include.worker.envelope import Keys, genuine, open_envelope, seal_envelope, signature
from include.worker.errors import BadMessage
from include.worker.tool_definitions import TOOL_DEFINITIONS, TOOL_NAMES

KEYS = Keys("task-42", 1, bytes.fromhex("c853a9e0d9cbb0bdf48605be71963f1a20bebda4b2e0752ae6aeb02cc97cd360"), bytes.fromhex(
    "09f14061159e1e0519df8cb28440c7c3354f4bd0de73ed888fb7b1b1bfc70e2f"))  # fmt: skip

IMPORT_ALL = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import include.worker
for module in pkgutil.iter_modules(include.worker.__path__):
    importlib.import_module(f"include.worker.{module.name}")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(loaded - set(sys.stdlib_module_names)), len(list(pkgutil.iter_modules(include.worker.__path__))))
print(sorted(name for name in sys.modules if name.startswith("include.") and not name.startswith("include.worker")))
"""


def test_the_zipapp_holds_and_loads_the_standard_library_only(toolbox):
    run = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_ALL, str(toolbox / "worker.pyz")], capture_output=True, text=True, check=True
    )
    modules = len(list((toolbox_module.ROOT / "include" / "worker").glob("*.py"))) - 2  # without __init__ and run_pytest
    assert run.stdout.splitlines() == [f"['include'] {modules}", "[]"]
    names = zipfile.ZipFile(toolbox / "worker.pyz").namelist()
    assert all(name in ("__main__.py", "include/__init__.py") or name.startswith("include/worker/") for name in names)


def test_the_source_tree_is_an_island_too():
    code = IMPORT_ALL.replace("print(sorted(loaded", "loaded -= {'include', 'pytest', '_pytest'}\nprint(sorted(loaded", 1)
    run = subprocess.run([sys.executable, "-I", "-S", "-c", code, str(toolbox_module.ROOT)], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[0].startswith("[] ") and run.stdout.splitlines()[1] == "[]"


def test_the_toolbox_is_built_once_and_mended(tmp_path):
    settings = Settings(home=tmp_path)
    first = toolbox_module.build(settings)
    stamp = first.stat().st_ino
    assert toolbox_module.build(settings).stat().st_ino == stamp, "nothing changed, nothing built"
    (first / "version").write_text("older")
    assert toolbox_module.build(settings).stat().st_ino != stamp
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".toolbox-")]
    assert not list(first.rglob("*.so")) and (first / "site" / "pytest" / "__init__.py").exists()
    run = subprocess.run([sys.executable, "-I", "-S", str(first / "worker.pyz"), "nonsense"], capture_output=True, text=True)
    assert run.returncode == 64 and "work | verify" in run.stderr


def test_what_is_compiled_reaches_the_sandbox(tmp_path):
    settings = Settings(home=tmp_path)
    built = toolbox_module.build(settings)
    copy = folders.toolbox(settings, tmp_path)
    code = "import sys; sys.path[:0] = sys.argv[1:]; import include.worker.child as c, _pytest.runner as r; "
    code += "print(c.run.__code__.co_filename, r.__cached__)"
    for toolbox in (built, copy):
        command = [sys.executable, "-I", "-S", "-B", "-c", code, str(toolbox / "worker.pyz"), str(toolbox / "site")]
        worker, runner = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        assert (
            worker == "/opt/airlock/worker.pyz/include/worker/child.py"
        )  # as it was compiled; from the source it would be the zip's own place
        assert Path(runner).is_relative_to(toolbox) and Path(runner).exists()


@pytest.mark.parametrize(
    ("direction", "key", "body", "tag"),
    [
        ("out", KEYS.out_key, b'{"v":1,"type":"heartbeat"}', "9e3e678bf66b88405e7ece6f9c69d7d1e33122ea4acb19baaf3f1693386bb557"),
        ("in", KEYS.in_key, b'{"v":1,"type":"answer"}', "a7127c836c6d8c6acac8f493b80228d8fc268234a703898374a86fc78473601f"),
    ],
)
def test_signature_vector(direction, key, body, tag):
    assert signature(key, "task-42", direction, body) == tag
    assert genuine(key, "task-42", direction, body, tag.encode())
    other = "in" if direction == "out" else "out"
    assert not genuine(key, "task-42", other, body, tag.encode()), "bound to the direction"
    assert not genuine(key, "task-4", direction, b"2" + body, tag.encode())
    assert not any(genuine(key, "task-42", direction, body, tag.encode()[:n]) for n in range(64)), "no prefix counts"


def test_wycheproof_hmac(corpora: Path):
    """Given Google's vectors; truncated tags (a prefix compare would take 87) are refused, whole ones agree."""
    import hmac as plain

    agree = truncated_refused = 0
    for group in json.loads((corpora / "wycheproof" / "hmac_sha256_test.json").read_text())["testGroups"]:
        for vector in group["tests"]:
            key, message, tag = (bytes.fromhex(vector[name]) for name in ("key", "msg", "tag"))
            whole = plain.new(key, message, "sha256").hexdigest().encode()
            if group["tagSize"] == 256:
                agree += plain.compare_digest(whole, tag.hex().encode()) == (vector["result"] == "valid")
            else:
                truncated_refused += not genuine(key, "task-42", "in", message, tag.hex().encode())
    assert (agree, truncated_refused) == (87, 87)


PAYLOADS = {
    "progress": {"status": "working", "step": "x"},
    "heartbeat": {"status": "ready", "step": ""},
    "llm.request": {"turn": 1, "results": [{"type": "tool_result", "tool_use_id": "t", "content": "c", "is_error": False}]},
    "question": {"question": "q", "options": [], "context": "", "urgency": "normal"},
    "permission.request": {"capability": "c", "detail": {}, "reason": "r"},
    "artifact": {"artifactType": "test_result", "data": {}},
    "task.complete": {"summary": "s", "commit": None},
    "task.failed": {"kind": "cancelled", "reason": "r"},
}


def test_every_message_of_ours_is_one_of_the_models():
    assert set(PAYLOADS) == set(OUT_PAYLOADS) and set(IN_PAYLOADS) == envelope.FROM_BROKER
    for seq, (type_, payload) in enumerate(PAYLOADS.items(), 1):
        sent = seal_envelope(KEYS, seq, type_, payload)
        message = FROM_WORKER.validate_json(sent.body)
        assert (message.type, message.seq, str(message.id), message.id.version) == (type_, seq, sent.id, 7)
    assert envelope.MAX_BODY_BYTES == __import__("include.messages.models", fromlist=["x"]).MAX_BODY_BYTES


def test_forged_bytes_are_refused():
    body = json.dumps({"v": 1, "id": "x", "taskId": "task-42", "epoch": 1, "type": "task.cancel", "replyTo": None, "ts": "t",
                       "idempotencyKey": "k", "seq": 1, "payload": {"reason": "r"}}).encode()  # fmt: skip
    tag = signature(KEYS.in_key, "task-42", "in", body).encode()
    assert open_envelope(KEYS, body, tag).type == "task.cancel"
    refused = tried = 0
    for at in range(len(body)):
        for flip in (1, 128):
            forged = body[:at] + bytes([body[at] ^ flip]) + body[at + 1 :]
            tried += 1
            with pytest.raises(BadMessage):
                open_envelope(KEYS, forged, tag)
            refused += 1
    print(f"{refused} of {tried} forgeries refused")
    for change in (
        {"epoch": 2},
        {"taskId": "task-43"},
        {"type": "llm.request"},
        {"v": 2},
        {"seq": 0},
        {"seq": True},
        {"payload": []},
        {"x": 1},
        {"replyTo": 1},
    ):
        other = json.dumps(json.loads(body) | change).encode()
        with pytest.raises(BadMessage):
            open_envelope(KEYS, other, signature(KEYS.in_key, "task-42", "in", other).encode())


def test_json_test_suite(corpora: Path):
    """All that must be accepted is (but what names a key twice), all that must be refused is, and nothing else is ever raised."""
    accepted = refused = 0
    duplicates = []
    for path in sorted((corpora / "jsontestsuite" / "test_parsing").iterdir()):
        try:
            strict_json.loads(path.read_bytes())
            accepted += path.name.startswith("y_")
            assert not path.name.startswith("n_"), path.name
        except ValueError as error:
            refused += path.name.startswith("n_")
            if path.name.startswith("y_"):
                assert "twice" in str(error), path.name
                duplicates.append(path.name)
    print(f"accepted {accepted} of 95, refused {refused} of 188, refused for a duplicate key: {duplicates}")
    assert (accepted + len(duplicates), refused) == (95, 188)
    assert strict_json.loads(strict_json.dumps(strict_json.storable({"a": "\0\ud800b"}))) == {"a": "\ufffd\ufffdb"}


def test_tools_are_the_public_ones():
    arguments = {tool["name"]: tuple(tool["input_schema"]["properties"]) for tool in TOOL_DEFINITIONS}
    assert arguments == {
        "read_file": ("path",), "write_file": ("path", "content"), "edit_file": ("path", "old", "new"), "list_files": ("path",),
        "search_files": ("pattern",), "run_tests": (), "git_commit": ("message",),
        "ask_master": ("question", "options", "context", "urgency"), "finish": ("summary",),
    }  # fmt: skip
    assert tuple(arguments) == TOOL_NAMES
