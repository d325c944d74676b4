"""Plain requests, and a client that polls."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cuttlefish_signaling import SignalingServer

from peers import PATIENCE, SeqpacketPeer, WebSocketPeer, peers_of


def request_json(server: SignalingServer, path: str, body: Any = None, *, method: str | None = None) -> tuple[int, Any]:
    """Status and parsed body of a request; POST where it has a body. A body of bytes goes out as it is."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    status, _, text = request(server, method or ("GET" if data is None else "POST"), path, data)
    return status, json.loads(text) if text else None


def request(
    server: SignalingServer, method: str, path: str, data: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


class PolledClient:
    """A polled connection to `cvd-1`, by either dialect: both have the same connection ids."""

    def __init__(self, server: SignalingServer) -> None:
        self.server = server
        status, answer = request_json(server, "/polled_connections", {"device_id": "cvd-1"})
        assert status == 200, answer
        self.id = answer["connection_id"]
        self.path = f"/polled_connections/{self.id}"

    def get(self, query: str = "") -> tuple[int, Any]:
        """`GET …/messages`: the payloads, or the error."""
        status, found = request_json(self.server, f"{self.path}/messages?{query}")
        return status, [message["payload"] for message in found] if status == 200 else found["error"]

    def wait_pending(self, *payloads: Any) -> None:
        """Returns once these can be fetched, as the first. Fetches and acknowledges none."""
        messages = [f'{{"message_type":"device_msg","payload":{json.dumps(payload)}}}' for payload in payloads]
        expected = str(len(f"[{','.join(messages)}]"))
        while request(self.server, "HEAD", f"{self.path}/messages")[1]["content-length"] != expected:
            os.sched_yield()


def send_forwards(device: WebSocketPeer | SeqpacketPeer, *payloads: Any) -> None:
    for payload in payloads:
        device.send({"message_type": "forward", "client_id": 1, "payload": payload})


@contextmanager
def polled_client(**settings: Any) -> Iterator[tuple[SignalingServer, WebSocketPeer, PolledClient]]:
    with SignalingServer(**settings) as server, peers_of(server) as peers:
        yield server, peers.device(), PolledClient(server)
