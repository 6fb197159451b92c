"""Control of renewal: one that forgets the goal run's deadline is seen."""

from __future__ import annotations

import pytest

from include.leases import service as leases
from include.settings import Settings
from tests.leases import test_renew


def test_control_a_renewal_without_the_deadline_is_seen(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    right = leases._SQL.renew
    assert right.count(", r.deadline_at)") == 1
    monkeypatch.setattr(leases._SQL, "renew", right.replace(", r.deadline_at)", ", 'infinity')"))
    with pytest.raises(AssertionError):
        test_renew.test_more_time_up_to_the_deadline_and_no_more(settings)
