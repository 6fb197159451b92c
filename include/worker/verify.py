"""``worker.pyz verify``: clone the bundle, run its tests, write the report as the hand-in. No link, no key, no model."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from include.worker import child, judged, pytest_report, strict_json
from include.worker.errors import BadMessage
from include.worker.git import BASE, Repository
from include.worker.paths import Paths

MAX_REPORT_BYTES = 16 * 1024 * 1024


def main(paths: Paths) -> int:
    """Run the tests of the bundle, judged by those of the base that the lease names, and hand in the report.

    Returns:
        0 when it was handed in, whatever it says.

    Raises:
        GitRefused: the bundle is missing or broken; nothing is handed in.
        OSError: ``spec.json`` is missing, or the workspace is full.
        BadMessage: ``spec.json`` does not say how long the tests may take, or names a base that is no commit.
    """
    child.protect()
    spec = _spec(paths)
    Repository(paths).clone(BASE)
    if spec.base is None:
        report = pytest_report.run(paths, spec.timeout_s)
    else:
        report = judged.run(paths, spec.base, spec.timeout_s)
    content = strict_json.dumps(strict_json.storable(report._asdict()))
    if len(content) > MAX_REPORT_BYTES:
        problem = f"the report has {len(content)} bytes for {len(report.tests)} tests; at most {MAX_REPORT_BYTES} can be handed in"
        content = strict_json.dumps(report._replace(tests={}, replaced={}, problem=problem)._asdict())
    part = paths.workspace / "handin.part"
    part.write_bytes(content)
    os.replace(part, paths.handin)
    return 0


class _Spec(NamedTuple):
    """How long the tests may take, and the commit whose tests and settings judge (None: the candidate's own)."""

    timeout_s: int
    base: str | None


def _spec(paths: Paths) -> _Spec:
    match strict_json.loads(paths.spec.read_bytes()):
        case {"test_timeout_s": int(seconds), "base": str(base)} if re.fullmatch("[0-9a-f]{40,64}", base):
            return _Spec(seconds, base)
        case {"test_timeout_s": int(seconds), **more} if "base" not in more:
            return _Spec(seconds, None)
    raise BadMessage(f"{paths.spec} does not say test_timeout_s, or its base is no commit")
