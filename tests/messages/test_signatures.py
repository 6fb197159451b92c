"""Signatures: the known vector, foreign vectors (Wycheproof), and controls that show what they catch."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

import pytest

from include.messages.signatures import sign, signed_bytes, tag_fits, verify

VECTORS = [
    (
        "out",
        "09f14061159e1e0519df8cb28440c7c3354f4bd0de73ed888fb7b1b1bfc70e2f",
        b'{"v":1,"type":"heartbeat"}',
        b'AIRLOCKv1 7 task-42 3 out 26 {"v":1,"type":"heartbeat"}',
        "9e3e678bf66b88405e7ece6f9c69d7d1e33122ea4acb19baaf3f1693386bb557",
    ),
    (
        "in",
        "c853a9e0d9cbb0bdf48605be71963f1a20bebda4b2e0752ae6aeb02cc97cd360",
        b'{"v":1,"type":"answer"}',
        b'AIRLOCKv1 7 task-42 2 in 23 {"v":1,"type":"answer"}',
        "a7127c836c6d8c6acac8f493b80228d8fc268234a703898374a86fc78473601f",
    ),
]


@pytest.mark.parametrize(("direction", "key", "body", "signed", "signature"), VECTORS)
def test_the_published_vector(direction: str, key: str, body: bytes, signed: bytes, signature: str) -> None:
    assert signed_bytes("task-42", direction, body) == signed  # type: ignore[arg-type]
    assert sign(bytes.fromhex(key), "task-42", direction, body) == signature  # type: ignore[arg-type]
    assert verify(bytes.fromhex(key), "task-42", direction, body, signature)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [str.upper, lambda s: s[:-2], lambda s: s + "00", lambda s: s + "\n", lambda s: "", lambda s: "é" * 64])
def test_only_the_one_form_of_a_signature(form) -> None:  # type: ignore[no-untyped-def]
    direction, key, body, _, signature = VECTORS[0]
    assert not verify(bytes.fromhex(key), "task-42", direction, body, form(signature))  # type: ignore[arg-type]


def _wycheproof(corpora: Path) -> list[dict[str, str | int]]:
    groups = json.loads((corpora / "wycheproof/hmac_sha256_test.json").read_text())["testGroups"]
    return [case | {"tagSize": group["tagSize"]} for group in groups for case in group["tests"]]


def test_wycheproof(corpora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = _wycheproof(corpora)
    truncated = [case for case in cases if case["tagSize"] < 256]
    fits = [tag_fits(*(bytes.fromhex(case[name]) for name in ("key", "msg", "tag"))) for case in cases]
    agree = sum(said == (case["result"] == "valid" and case["tagSize"] == 256) for said, case in zip(fits, cases, strict=True))
    with capsys.disabled():
        print(f"\n  Wycheproof: {len(cases)} inputs, {fits.count(False)} refused, {fits.count(True)} accepted, 0 crashed")
    assert (agree, len(cases), len(truncated)) == (174, 174, 87)


def test_control_a_prefix_compare_accepts_truncated_tags(corpora: Path) -> None:
    def prefix(key: bytes, message: bytes, tag: bytes) -> bool:
        return hmac.digest(key, message, "sha256").startswith(tag)

    cases = [case for case in _wycheproof(corpora) if case["tagSize"] < 256 and case["result"] == "valid"]
    assert cases and all(prefix(*(bytes.fromhex(case[name]) for name in ("key", "msg", "tag"))) for case in cases)
