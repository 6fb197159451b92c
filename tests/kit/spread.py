"""How tests are spread over the processes of ``pytest -n N --dist loadgroup``: the tests of a group run in one process, in their order.

pytest-xdist 3.8's own ``loadgroup`` hands the group over in a test's name, which pytest 9.2 no longer lets it change: there every test would
be a group of its own. Here the processes hand the groups over in a file.
"""

from __future__ import annotations

import json
import os

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from tests.kit import run_folder

FILE = "groups.json"


def tell(items: list[pytest.Item]) -> None:
    """Write down which group each test is in; every process of a run writes the same."""
    groups = {item.nodeid: str(mark.args[0]) for item in items if (mark := item.get_closest_marker("xdist_group"))}
    path = run_folder.folder() / f"{FILE}.{os.getpid()}"
    path.write_text(json.dumps(groups))
    path.rename(path.with_name(FILE))


class Groups(LoadScopeScheduling):
    """Hands out one group after another, in the order of their first tests, to whoever has one test left."""

    groups: dict[str, str] | None = None

    def _split_scope(self, nodeid: str) -> str:
        if self.groups is None:
            self.groups = json.loads((run_folder.folder() / FILE).read_text())
        return self.groups.get(nodeid, nodeid)

    def _reschedule(self, node: WorkerController) -> None:
        """A process must know its next test before it begins one; whatever it had besides, another would miss."""
        if not self.workqueue or self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)
