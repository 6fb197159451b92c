"""Control of the last line: what ends a sandbox whose warden is dead is its own timeout, and nothing before it."""

from __future__ import annotations

import time

import pytest

from include.settings import Settings
from tests.kit.scale import limit
from tests.sandbox.conftest import COMMIT, Node, docker_answers, own_home
from tests.sandbox.test_ends import inside
from tests.sandbox.test_last_line import OWN_S, TIMEOUT_S


@pytest.mark.slow
@pytest.mark.skipif(not docker_answers(), reason="no Docker engine with the worker image here")
def test_control_with_a_longer_timeout_it_lives_on(servers: Settings) -> None:
    """The same scene with a lease of ten minutes instead of some seconds."""
    with own_home(servers, "docker", TIMEOUT_S) as mine:
        node = Node(mine, "docker")
        mine.bundles_dir.mkdir()
        (mine.bundles_dir / f"{COMMIT}.bundle").write_bytes(b"not really a bundle")
        node.seed()
        node.program("import time; time.sleep(1000)")
        node.start_warden()
        try:
            _, name = node.lease("verify", seconds=600)
            node.run(name)
            node.kill("warden")
            time.sleep(OWN_S + limit(1))  # the other one is gone by now
            assert inside(node, name)
        finally:
            node.end_all()
            node.stop()
