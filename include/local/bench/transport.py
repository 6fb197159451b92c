"""``./airlock bench transport``: one broker against the raw streams and against one transaction a message, in the same run."""

from __future__ import annotations

from include.local.bench.report import Report
from include.local.bench.servers import temporary_servers


def run(messages: int) -> Report:
    """Measure.

    Args:
        messages: how many each variant takes.
    """
    with temporary_servers(shared_buffers="256MB"):
        return {"title": f"Transport: {messages:,} messages", "rows": [], "ratios": {}, "notes": []}
