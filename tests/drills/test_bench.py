"""The benchmarks: a small run gives every figure, and leaves neither process nor folder behind."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.drills.bench import report, transport


@pytest.fixture
def homes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which this process makes its temporary ones; others on this machine measure too."""
    with tempfile.TemporaryDirectory(prefix="al-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)
        monkeypatch.undo()


@pytest.mark.slow
def test_transport_measures_every_row_in_one_run(homes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = os.environ.get("AIRLOCK_HOME")
    report.show(transport.run(1_000, asked=50), as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert [row["messages"] for row in found["rows"]] == [1_000, 1_000, 1_000, 50]
    assert all(row["messages_per_s"] > 0 for row in found["rows"][:3]) and 0 < found["rows"][3]["p50_ms"] <= found["rows"][3]["p95_ms"]
    assert found["ratios"]["ours_to_one_by_one"] > 3, "batches are what makes it fast"
    assert found["machine"]["cores"] == os.cpu_count()
    assert list(homes.iterdir()) == [] and os.environ.get("AIRLOCK_HOME") == home


def test_percentiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [report.percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert report.percentile([7.0], 0.5) == 7 and report.percentile([], 0.5) == 0
