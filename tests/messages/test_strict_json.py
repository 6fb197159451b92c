"""Strict JSON against JSONTestSuite, with Python's own reader as the control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from include.messages.strict_json import NotStrict, parse, storable


def _refused(data: bytes, **options: bool) -> bool:
    try:
        parse(data, **options)
    except NotStrict:
        return True
    return False


def _files(corpora: Path, kind: str) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((corpora / "jsontestsuite/test_parsing").glob(f"{kind}_*.json"))}


def test_jsontestsuite(corpora: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad, good, either = (_files(corpora, kind) for kind in "nyi")
    refused = [name for name, data in bad.items() if _refused(data)]
    accepted = [name for name, data in good.items() if not _refused(data, unique_keys=False)]
    loose = [name for name, data in either.items() if not _refused(data)]
    with capsys.disabled():
        print(f"\n  JSONTestSuite: {len(bad) + len(good) + len(either)} inputs, {len(refused)} of {len(bad)} refused, "
              f"{len(accepted)} of {len(good)} accepted, {len(loose)} of {len(either)} optional accepted, 0 crashed")  # fmt: skip
    assert (len(refused), len(accepted)) == (188, 95)


def test_only_doubled_keys_are_refused_beyond_the_grammar(corpora: Path) -> None:
    refused = [name for name, data in _files(corpora, "y").items() if _refused(data)]
    assert refused == ["y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"]


def test_control_pythons_reader_accepts_or_dies(corpora: Path) -> None:
    accepted, died = [], []
    for name, data in _files(corpora, "n").items():
        try:
            json.loads(data)
            accepted.append(name)
        except ValueError:
            pass
        except RecursionError:
            died.append(name)
    assert len(accepted) >= 3 and len(died) >= 1


@pytest.mark.parametrize(
    "data",
    [b"1e999", b"-1e999", b"NaN", b"[Infinity]", b'{"a":1,"a":1}', b'{"x":{"a":1,"\\u0061":2}}', b"[" * 101 + b"]" * 101, b"9" * 101,
     b"[" * 200_000, b'"\xff"', b'"\\ud800"', b"\xef\xbb\xbf1", b"", b"1 2"],
)  # fmt: skip
def test_refused(data: bytes) -> None:
    assert _refused(data)


def test_storable_has_no_nul() -> None:
    assert storable({"a\x00": ["\x00b", 1, None]}) == {"a\ufffd": ["\ufffdb", 1, None]}
