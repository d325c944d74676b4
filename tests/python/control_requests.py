"""Requests to the control API of a server of the tests, on the standard library."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cuttlefish_signaling import SignalingServer

from http_requests import Response
from peers import PATIENCE

TOKEN = "token-of-the-tests"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connects to the Unix socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


def connection_to(url: str) -> http.client.HTTPConnection:
    """Returns a connection to a control API."""
    if url.startswith("unix:"):
        return _UnixConnection(url.removeprefix("unix:"))
    return http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)


class Control:
    """The control API of one server."""

    def __init__(self, url: str, token: str | None) -> None:
        self.url = url
        self.token = token
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    @contextmanager
    def opened(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """A response whose body is still to be read. A body of bytes is sent as it is."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {**({} if data is None else {"Content-Type": "application/json"}), **self._headers, **(headers or {})}
        connection = connection_to(self.url)
        try:
            connection.request(method, f"/control/v1{path}", data, fields)
            yield connection.getresponse()
        finally:
            connection.close()

    @contextmanager
    def begun(self, method: str, path: str, body: Any = None) -> Iterator[http.client.HTTPConnection]:
        """A request that was sent, and whose answer may come much later."""
        headers = {**self._headers, "Content-Type": "application/json"} if body is not None else self._headers
        connection = connection_to(self.url)
        try:
            connection.request(method, f"/control/v1{path}", None if body is None else json.dumps(body), headers)
            yield connection
        finally:
            connection.close()

    def answer(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Response:
        """The whole answer."""
        with self.opened(method, path, body, headers) as response:
            return Response(response.status, response.headers, response.read())

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer, which has to be 200 or 201."""
        answer = self.answer(method, path, body)
        assert answer.status in (200, 201), (method, path, answer)
        return answer.json

    def refusal(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str, str | None]:
        """The status, the code and the path of an error."""
        answer = self.answer(method, path, body, headers)
        assert answer.headers["content-type"] == "application/json", answer
        assert isinstance(answer.json["error"], str)
        return answer.status, answer.json["code"], answer.json.get("path")


@contextmanager
def controlled_server(**settings: Any) -> Iterator[tuple[SignalingServer, Control]]:
    """A server with a journal and a control API."""
    given = {"control_api": ["http://127.0.0.1:0"], "journal": True, **settings}
    with SignalingServer(**given) as server:
        assert server.control_url is not None
        yield server, Control(server.control_url, server.control_token)
