"""Envelopes: round trips, naughty strings, and forgeries of every kind, with the seed's scheme as the control."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include.clock import new_id
from include.errors import EnvelopeRefused
from include.messages import models
from include.messages.envelopes import EnvelopeHead, Sender, make_body, open_envelope
from include.messages.models import MAX_BODY_BYTES
from include.messages.signatures import sign
from include.tasks.models import AttemptRef
from tests.kit.scale import count

TASK, EPOCH = "g1f0c2a9b77de-parser", 2
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
SINCE = NOW - timedelta(hours=2)
OUT_KEY, IN_KEY = secrets.token_bytes(32), secrets.token_bytes(32)

OUT = [
    models.Progress(status="working", step="edits a file"),
    models.Heartbeat(status="ready", step=""),
    models.LlmRequest(turn=2, results=[{"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok", "is_error": False}]),
    models.Question(question="which?", options=["a", "b"], context="c", urgency="blocking"),
    models.PermissionRequest(capability="test", detail={"x": [1, 2.5, None]}, reason="r"),
    models.ArtifactMessage(artifact_type="test_result", data={"passed": 3}),
    models.TaskComplete(summary="done", commit="a" * 40),
    models.TaskFailed(kind="gave_up", reason="r"),
]
IN = [
    models.TaskCancel(reason="r"),
    models.LlmResponse(stop_reason="end_turn", content=[{"type": "text", "text": "hi"}]),
    models.Answer(answer="a", decided_by="m"),
    models.PermissionDeny(capability="test", decided_by="broker", reason="r"),
    models.Receipt(),
]


def _make(payload: models.Wire, seq: int, ts: datetime = NOW) -> tuple[bytes, str, bytes, str]:
    direction = "out" if payload in OUT else "in"
    key = OUT_KEY if direction == "out" else IN_KEY
    _, body = make_body(EnvelopeHead(new_id(), AttemptRef(TASK, EPOCH), seq, f"key-{seq}", ts), payload)
    return body, sign(key, TASK, direction, body), key, direction  # type: ignore[arg-type]


def _open(body: bytes, signature: str, key: bytes = OUT_KEY, direction: str = "out", task: str = TASK, epoch: int = EPOCH) -> Any:
    return open_envelope(direction, body, signature, Sender(AttemptRef(task, epoch), key, SINCE), NOW)  # type: ignore[arg-type]


def _refused(*arguments: Any, **names: Any) -> bool:
    try:
        _open(*arguments, **names)
    except EnvelopeRefused:
        return True
    return False


@pytest.mark.parametrize("payload", [*OUT, *IN], ids=lambda payload: type(payload).__name__)
def test_round_trip(payload: models.Wire) -> None:
    body, signature, key, direction = _make(payload, 1)
    envelope = _open(body, signature, key, direction)
    assert envelope.payload == payload
    assert (envelope.task_id, envelope.epoch, envelope.seq, envelope.ts) == (TASK, EPOCH, 1, NOW)


def _forgeries(rng: random.Random, seq: int) -> list[tuple[str, tuple[bytes, str, bytes, str, str, int]]]:
    """Ways to forge one valid message; each as (what, what ``_open`` is given)."""
    body, signature, key, direction = _make(rng.choice([*OUT, *IN]), seq)
    other = "in" if direction == "out" else "out"
    at, bit = rng.randrange(len(body)), 1 << rng.randrange(8)
    flipped = body[:at] + bytes([body[at] ^ bit]) + body[at + 1 :]
    tag = bytearray(bytes.fromhex(signature))
    tag[rng.randrange(32)] ^= bit
    fields = json.loads(body)
    edited = json.dumps(fields | {"seq": seq + 1}).encode()
    repaid = json.dumps(fields | {"payload": {}}).encode()
    twice = body[:-1] + b',"seq":' + str(seq).encode() + b"}"
    stale = json.dumps(fields | {"epoch": EPOCH - 1}).encode()
    past, future = (
        json.dumps(fields | {"ts": moment.isoformat()}).encode() for moment in (SINCE - timedelta(hours=1), NOW + timedelta(hours=1))
    )
    extra = json.dumps(fields | {"sudo": True}).encode()
    same = (direction, TASK, EPOCH)
    return [
        ("a flipped bit", (flipped, signature, key, *same)),
        ("a cut body", (body[:-1], signature, key, *same)),
        ("a longer body", (body + b" ", signature, key, *same)),
        ("an edited number", (edited, signature, key, *same)),
        ("an edited payload", (repaid, signature, key, *same)),
        ("a flipped tag", (body, tag.hex(), key, *same)),
        ("a cut tag", (body, signature[:62], key, *same)),
        ("no tag", (body, "", key, *same)),
        ("the other direction", (body, signature, key, other, TASK, EPOCH)),
        ("another task", (body, signature, key, direction, TASK + "2", EPOCH)),
        ("an older attempt's key", (body, sign(secrets.token_bytes(32), TASK, direction, body), key, *same)),  # type: ignore[arg-type]
        # what a worker that holds its key could sign itself:
        ("another epoch, signed", (stale, sign(key, TASK, direction, stale), key, *same)),  # type: ignore[arg-type]
        ("a doubled field, signed", (twice, sign(key, TASK, direction, twice), key, *same)),  # type: ignore[arg-type]
        ("before its attempt, signed", (past, sign(key, TASK, direction, past), key, *same)),  # type: ignore[arg-type]
        ("of the future, signed", (future, sign(key, TASK, direction, future), key, *same)),  # type: ignore[arg-type]
        ("an extra field, signed", (extra, sign(key, TASK, direction, extra), key, *same)),  # type: ignore[arg-type]
        ("another task's body, signed", (body, sign(key, TASK + "2", direction, body), key, direction, TASK + "2", EPOCH)),  # type: ignore[arg-type]
        ("the other role's type, signed", (body, sign(key, TASK, other, body), key, other, TASK, EPOCH)),  # type: ignore[arg-type]
    ]


def test_forgeries_are_refused_and_valid_ones_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(20261121)
    accepted = sum(not _refused(*_make(rng.choice([*OUT, *IN]), seq)) for seq in range(1, 201))
    tried, let_through = 0, []
    for seq in range(1, 131):
        for what, arguments in _forgeries(rng, seq):
            tried += 1
            if not _refused(*arguments):
                let_through.append(what)
    with capsys.disabled():
        print(f"\n  envelopes: {tried} forgeries, {tried - len(let_through)} refused; {accepted} of 200 valid accepted; 0 crashed")
    assert tried >= 2_000 and let_through == [] and accepted == 200


WRONG: dict[str, list[Any]] = {
    "v": [0, 2, "1", None, True, 1.0],
    "type": ["", "sudo", 1, None, "Progress"],
    "id": ["x", "", None, 7],
    "taskId": [TASK + "2", "../" + TASK, "", None, 1, TASK.upper()],
    "epoch": [0, EPOCH - 1, EPOCH + 1, str(EPOCH), EPOCH + 0.5, float(EPOCH), None, True],
    "replyTo": ["x", 5, []],
    "ts": [
        (SINCE - timedelta(hours=1)).isoformat(),
        (NOW + timedelta(hours=1)).isoformat(),
        NOW.replace(tzinfo=None).isoformat(),
        "x",
        None,
    ],
    "idempotencyKey": ["", "k" * 201, "k\x00", "\n\x00", None, 1],
    "seq": [0, -1, 2**53, 1.5, "1", None, True, 10**90],
    "payload": [None, [], {}, "x", {"surplus": 1}],
}
"""Values of each field that no message may have, whoever signed it."""


@pytest.mark.sized
def test_each_byte_and_each_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Seed defects D1 (unsigned parts) and D21 (control messages without the envelope's fields): any changed byte, any wrong or missing field."""
    rng, counts, let_through = random.Random(4), {"byte": 0, "tag": 0, "unsigned edit": 0, "signed edit": 0, "missing": 0}, []

    def forge(kind: str, body: bytes, signature: str, key: bytes, direction: str) -> None:
        counts[kind] += 1
        if not _refused(body, signature, key, direction):
            let_through.append((kind, body))

    for seq in range(1, count(26, 200) + 1):  # at least two of each kind of message
        body, signature, key, direction = _make(([*OUT, *IN])[seq % 13], seq)
        for at in range(len(body)):
            forge("byte", body[:at] + bytes([body[at] ^ 1 << rng.randrange(8)]) + body[at + 1 :], signature, key, direction)
        for at, digit in enumerate(signature):
            other = rng.choice(sorted(set("0123456789abcdefABCDEF") - {digit}))
            forge("tag", body, signature[:at] + other + signature[at + 1 :], key, direction)
        fields = json.loads(body)
        edits = [(name, value) for name, values in WRONG.items() for value in values if json.dumps(fields[name]) != json.dumps(value)]
        for name, value in edits:
            text = json.dumps(fields | {name: value}).encode()
            forge("unsigned edit", text, signature, key, direction)
            forge("signed edit", text, sign(key, TASK, direction, text), key, direction)  # type: ignore[arg-type]
        for name in WRONG.keys() - {"v"}:
            text = json.dumps({field: value for field, value in fields.items() if field != name}).encode()
            forge("missing", text, sign(key, TASK, direction, text), key, direction)  # type: ignore[arg-type]
    with capsys.disabled():
        print(f"\n  envelopes: {sum(counts.values()):,} forgeries {counts}, {len(let_through)} let through, 0 crashed")
    assert let_through == [] and sum(counts.values()) >= count(10_000, 20_000) and all(counts.values())


def test_control_the_seeds_scheme_lets_edits_through() -> None:
    """Seed defect D1, as the seed has it."""

    # It signed id, task, type and time only (facts/dependencies.md 5.2); here it is, to show that the forgeries above mean something.
    def seed_sign(body: bytes) -> str:
        fields = json.loads(body)
        text = f"{fields['id']}:{fields['taskId']}:{fields['type']}:{fields['ts']}"
        return hmac.new(OUT_KEY, text.encode(), hashlib.sha256).hexdigest()

    body, *_ = _make(OUT[0], 7)
    signature = seed_sign(body)
    fields = json.loads(body)
    edits = [{"payload": {"tokens": 0}}, {"seq": 99}, {"idempotencyKey": "x"}, {"replyTo": str(new_id())}, {"epoch": 9}]
    assert all(seed_sign(json.dumps(fields | edit).encode()) == signature for edit in edits)
    # And of the byte flips above, each that leaves the JSON readable and these four fields alone fits as well.
    through = 0
    for at in range(len(body)):
        flipped = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        try:
            through += seed_sign(flipped) == signature
        except (ValueError, KeyError):
            continue
    assert through > 20


def test_too_large() -> None:
    body = b" " * (MAX_BODY_BYTES + 1)
    assert _refused(body, sign(OUT_KEY, TASK, "out", body))
    with pytest.raises(EnvelopeRefused):
        make_body(
            EnvelopeHead(new_id(), AttemptRef(TASK, EPOCH), 1, "k", NOW),
            models.LlmResponse(stop_reason=None, content=[{"text": "x" * MAX_BODY_BYTES}]),
        )


def test_broken_json_with_a_good_signature_is_refused(corpora: Path) -> None:
    files = sorted((corpora / "jsontestsuite/test_parsing").glob("*.json"))
    bodies = [file.read_bytes() for file in files]
    assert len(bodies) == 318 and all(_refused(body, sign(OUT_KEY, TASK, "out", body)) for body in bodies)


def test_naughty_strings_round_trip(corpora: Path) -> None:
    strings = json.loads((corpora / "blns/blns.json").read_text())
    for seq, text in enumerate(strings, 1):
        payload = models.LlmRequest(turn=1, results=[{"type": "tool_result", "tool_use_id": text, "content": text, text: text}])
        body = make_body(EnvelopeHead(new_id(), AttemptRef(TASK, EPOCH), seq, f"k{seq}", NOW), payload)[1]
        assert _open(body, sign(OUT_KEY, TASK, "out", body)).payload.results[0]["content"] == text
    assert len(strings) == 515
