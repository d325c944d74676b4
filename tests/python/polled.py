"""A client that polls, in either dialect."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cuttlefish_signaling import SignalingServer

from http_requests import request, request_json
from peers import SeqpacketPeer, WebSocketPeer, peers_of, wait_until


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
        """Returns when these are the pending messages. Fetches and acknowledges none of them."""
        messages = [f'{{"message_type":"device_msg","payload":{json.dumps(payload)}}}' for payload in payloads]
        expected = str(len(f"[{','.join(messages)}]"))
        head = f"{self.path}/messages"
        wait_until(lambda: request(self.server, "HEAD", head).headers["content-length"] == expected)


def send_forwards(device: WebSocketPeer | SeqpacketPeer, *payloads: Any) -> None:
    for payload in payloads:
        device.send({"message_type": "forward", "client_id": 1, "payload": payload})


@contextmanager
def polled_client(**settings: Any) -> Iterator[tuple[SignalingServer, WebSocketPeer, PolledClient]]:
    with SignalingServer(**settings) as server, peers_of(server) as peers:
        yield server, peers.device(), PolledClient(server)
