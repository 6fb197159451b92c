"""The last line: with everything outside dead, a container ends by its own timeout, later than the warden would have ended it."""

from __future__ import annotations

import os
import time

import pytest

from include.settings import Settings
from tests.conftest import wait_until
from tests.sandbox.conftest import COMMIT, Node, docker_answers, own_home
from tests.sandbox.test_ends import inside


@pytest.mark.skipif(not docker_answers(), reason="no Docker engine with the worker image here")
def test_the_sandboxs_own_timeout_is_the_last_line(servers: Settings) -> None:
    """With the warden dead a container ends by itself, later than the warden would have ended it."""
    os.environ["AIRLOCK_HEARTBEAT_TIMEOUT_S"] = "5"
    try:
        with own_home(servers, "docker") as mine:
            node = Node(mine, "docker")
            mine.bundles_dir.mkdir()
            (mine.bundles_dir / f"{COMMIT}.bundle").write_bytes(b"not really a bundle")
            node.seed()
            node.program("import time; time.sleep(1000)")
            node.start_warden()
            lease, name = node.lease("verify", seconds=4)
            node.run(name)
            begun = time.monotonic()
            node.kill("warden")
            time.sleep(6)
            assert inside(node, name)
            wait_until("it ends by itself", lambda: not inside(node, name), 15)
            assert 10 < time.monotonic() - begun < 20
            node.start_warden()
            assert node.ended(lease)["exit_code"] == 124
            node.stop()
    finally:
        del os.environ["AIRLOCK_HEARTBEAT_TIMEOUT_S"]
