"""Airflow's REST API as far as a test needs it: a server of its own that says what the test told it to, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from include.airflow_api import client


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    token: str
    body: Any


class Said(NamedTuple):
    """One answer."""

    status: int
    body: Any = None


Answer = Callable[[Asked], Said]


@contextmanager
def airflow_that_answers(port: int, answer: Answer) -> Iterator[list[Asked]]:
    """Answer on a port until the block ends; yields all that was asked so far, logins too."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            one = Asked(
                self.command,
                self.path,
                (self.headers.get("Authorization") or "").removeprefix("Bearer "),
                json.loads(text) if text else None,
            )
            asked.append(one)
            said = answer(one)
            out = said.body if isinstance(said.body, bytes) else json.dumps(said.body or {}).encode()
            self.send_response(said.status)
            self.send_header("Content-Length", str(len(out)))
            self.end_headers()
            self.wfile.write(out)

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        client._tokens.clear()  # the token of this server opens no other
