"""HTTP requests to a server of the tests, on the standard library."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from cuttlefish_signaling import SignalingServer

from peers import PATIENCE


class Response(NamedTuple):
    """A response, read to its end."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed; None without a body."""
        return json.loads(self.body) if self.body else None

    @property
    def error(self) -> str:
        """The text of `{"error": TEXT}`."""
        return str(self.json["error"])


@contextmanager
def open_response(
    server: SignalingServer,
    method: str,
    path: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> Iterator[http.client.HTTPResponse]:
    """A response whose body is still to be read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, data, headers or {})
        yield connection.getresponse()
    finally:
        connection.close()


def request(
    server: SignalingServer,
    method: str,
    path: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    **more_headers: str,
) -> Response:
    """Sends a request. Keyword arguments are header fields: `If_None_Match` is `If-None-Match`."""
    fields = {**(headers or {}), **{name.replace("_", "-"): value for name, value in more_headers.items()}}
    with open_response(server, method, path, data, fields) as response:
        return Response(response.status, response.headers, response.read())


def request_json(server: SignalingServer, path: str, body: Any = None, *, method: str | None = None) -> tuple[int, Any]:
    """Status and parsed body. The method is POST if there is a body. A body of bytes is sent as it is."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    response = request(server, method or ("GET" if data is None else "POST"), path, data)
    return response.status, response.json
