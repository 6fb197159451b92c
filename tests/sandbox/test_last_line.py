"""The last line: with everything outside dead, a container ends by its own timeout, later than the warden would have ended it."""

from __future__ import annotations

import time

import pytest

from include.settings import Settings
from tests.conftest import wait_until
from tests.kit.scale import limit
from tests.sandbox.conftest import COMMIT, Node, docker_answers, own_home
from tests.sandbox.test_ends import inside

LEASE_S, TIMEOUT_S = limit(6), int(limit(3))
WARDENS_LATEST_S = LEASE_S + TIMEOUT_S
"""With all that it waits for, the warden would have ended it by then."""
OWN_S = LEASE_S + 2 * TIMEOUT_S


@pytest.mark.slow
@pytest.mark.skipif(not docker_answers(), reason="no Docker engine with the worker image here")
def test_the_sandboxs_own_timeout_is_the_last_line(servers: Settings) -> None:
    """With the warden dead a container ends by itself, later than the warden would have ended it."""
    with own_home(servers, "docker", TIMEOUT_S) as mine:
        node = Node(mine, "docker")
        mine.bundles_dir.mkdir()
        (mine.bundles_dir / f"{COMMIT}.bundle").write_bytes(b"not really a bundle")
        node.seed()
        node.program("import time; time.sleep(1000)")
        node.start_warden()
        granted = time.monotonic()
        lease, name = node.lease("verify", seconds=LEASE_S)
        node.run(name)
        begun = time.monotonic()
        node.kill("warden")
        time.sleep(max(0.0, granted + WARDENS_LATEST_S - time.monotonic()))
        assert inside(node, name)
        wait_until("it ends by itself", lambda: not inside(node, name), 15)
        ended = time.monotonic()
        assert ended - granted > OWN_S and ended - begun < OWN_S + limit(8)
        node.start_warden()
        assert node.ended(lease)["exit_code"] == 124
        node.stop()
