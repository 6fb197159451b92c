"""``worker.pyz verify``: clone the base bundle, run its tests once, write the report as the hand-in. No link, no key, no model."""

from __future__ import annotations

import os

from include.worker import child, pytest_report, strict_json
from include.worker.errors import BadMessage
from include.worker.git import BASE, Repository
from include.worker.paths import Paths

MAX_REPORT_BYTES = 16 * 1024 * 1024


def main(paths: Paths) -> int:
    """Run the tests of the base bundle and hand in the report; returns 0 when it was handed in, whatever it says.

    Raises:
        GitRefused: the bundle is missing or broken; nothing is handed in.
        OSError: ``spec.json`` is missing, or the workspace is full.
        BadMessage: ``spec.json`` does not say how long the tests may take.
    """
    child.protect()
    timeout_s = _test_timeout_s(paths)
    Repository(paths).clone(BASE)
    report = pytest_report.run(paths, timeout_s)
    content = strict_json.dumps(strict_json.storable(report._asdict()))
    if len(content) > MAX_REPORT_BYTES:
        problem = f"the report has {len(content)} bytes for {len(report.tests)} tests; at most {MAX_REPORT_BYTES} can be handed in"
        content = strict_json.dumps(report._replace(tests={}, problem=problem)._asdict())
    part = paths.workspace / "handin.part"
    part.write_bytes(content)
    os.replace(part, paths.handin)
    return 0


def _test_timeout_s(paths: Paths) -> int:
    match strict_json.loads(paths.spec.read_bytes()):
        case {"test_timeout_s": int(seconds)}:
            return seconds
    raise BadMessage(f"{paths.spec} does not say test_timeout_s")
