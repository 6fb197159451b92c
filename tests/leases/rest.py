"""Airflow's REST API as far as a killed trigger asks it: a server of its own that tells what a test says of each step."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from include.airflow_api import client


@contextmanager
def airflow_that_says(port: int, steps: dict[str, dict[str, Any]]) -> Iterator[None]:
    """Answer on a port until the block ends.

    Args:
        steps: by task id, the answer of ``GET …/taskInstances/<task id>``; any other is not found.
    """

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._say(201, {"access_token": "t"})

        def do_GET(self) -> None:
            step = steps.get(self.path.rpartition("/")[2])
            self._say(200 if step else 404, step or {})

        def _say(self, status: int, body: dict[str, Any]) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        client._tokens.clear()  # the token of this server opens no other
