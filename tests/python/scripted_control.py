"""A control API whose answers a test writes, for the errors of its client."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

HELLO: dict[str, Any] = {
    "api": 1,
    "version": "9.9.9",
    "instance": "a1",
    "journal": True,
    "cluster": False,
    "listeners": ["http://127.0.0.1:1"],
}
"""The first answer of a server of this version."""

Answer: TypeAlias = tuple[int, dict[str, str], bytes]


def answer(status: int, value: Any, **headers: str) -> Answer:
    """An answer with JSON. `Retry_After` is the header `Retry-After`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"Cuttlefish-Instance": "a1", **named}, json.dumps(value).encode()


@dataclass
class Scripted:
    """A server. `answers` has a function for each request, by method and path without `/control/v1`."""

    url: str = ""
    answers: dict[str, Callable[[], Answer]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Any] = field(default_factory=list)
    connections: int = 0
    closes: bool = False
    """Whether each connection is closed after its answer, which does not say so."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.script.connections += 1

    def _answer(self) -> None:
        script = self.server.script
        request = f"{self.command} {self.path.removeprefix('/control/v1')}"
        script.requests.append(request)
        script.headers.append(dict(self.headers))
        length = int(self.headers.get("Content-Length") or 0)
        script.bodies.append(json.loads(self.rfile.read(length)) if length else None)
        status, headers, body = script.answers.get(request, lambda: answer(404, {"error": "?", "code": "not_found"}))()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Transfer-Encoding" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = script.closes or "close" in headers.values() or "Transfer-Encoding" in headers

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    script: Scripted


@contextmanager
def scripted(**hello: Any) -> Iterator[Scripted]:
    """A server that says hello as one of this version, with these changes."""
    script = Scripted()
    script.answers["GET "] = lambda: answer(200, {**HELLO, **hello})
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.script = script
        script.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield script
        finally:
            server.shutdown()
            thread.join()
