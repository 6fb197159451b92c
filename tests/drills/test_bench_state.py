"""The benchmark of durable transitions measures ours in any case, and says so where a peer cannot be installed."""

from __future__ import annotations

import pytest

from include.drills.bench import state


@pytest.mark.slow
def test_a_peer_that_cannot_be_installed_is_left_out_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PEERS", {"Nobody": (["/nowhere/at/all"], "peer_dbos.py")})
    told = state.run(20)
    assert [row["what"] for row in told.rows] == [
        "Airlock transition", "Airlock transition, again", "Airlock transition, fresh connection"]  # fmt: skip
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["max_ms"] for row in told.rows) and told.ratios == {}
    assert [note for note in told.notes if note.startswith("Nobody: not measured. Its packages could not be installed: ")]


def test_the_ratio_is_ours_to_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "PEERS", {"DBOS step": ([], "")})
    measured = {"Airlock transition": [1.0], "Airlock transition, again": [1.0], "DBOS step": [4.0, 4.0]}
    assert state._ratios(measured) == {"ours_to_DBOS_step_p50": 0.25, "ours_to_DBOS_step_p95": 0.25}
