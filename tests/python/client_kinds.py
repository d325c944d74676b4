"""Every kind of client that a server has, by one interface, and devices on the network and on the device socket."""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuttlefish_signaling import SignalingServer

from http_requests import request_json
from peers import Peers, SeqpacketPeer, peers_of

DEVICE_ID = "cvd/1 \u00e9"
INFO = {"displays": [1.0]}


class BareClient:
    """`WS /devices/{id}/connect`."""

    def __init__(self, peers: Peers, device_id: str) -> None:
        self.device_id = urllib.parse.quote(device_id, safe="")
        self.socket = peers.connect(f"{peers.server.url.replace('http', 'ws', 1)}/devices/{self.device_id}/connect")
        assert self.socket.receive() == {"device_info": INFO}

    def send(self, payload: Any) -> None:
        self.socket.send(payload)

    def receive(self) -> Any:
        heard = self.socket.receive()
        return heard.get("payload", heard)

    def close(self) -> None:
        self.socket.close()


class LongPollClient:
    """`/polled_connections`, with long polls unless `wait` is 0."""

    def __init__(self, peers: Peers, device_id: str, wait: float = 10) -> None:
        self.server, self.wait, self.start = peers.server, wait, 0
        status, answer = request_json(self.server, "/polled_connections", {"device_id": device_id})
        assert (status, answer["device_info"], set(answer)) == (200, INFO, {"connection_id", "device_info"})
        self.path = f"/polled_connections/{answer['connection_id']}"

    def send(self, payload: Any) -> None:
        assert request_json(self.server, f"{self.path}/:forward", {"payload": payload}) == (200, "ok")

    def receive(self) -> Any:
        while True:
            status, found = request_json(
                self.server, f"{self.path}/messages?start={self.start}&count=1&wait={self.wait}"
            )
            if status != 200:
                return found
            if found:
                (message,) = found
                self.start += 1
                assert message["message_type"] == "device_msg"
                return message["payload"]

    def close(self) -> None:
        self.server.clock.advance(60)


class ReferenceClient:
    """`/connect`, `/forward`, `/poll_messages`."""

    def __init__(self, peers: Peers, device_id: str) -> None:
        self.server = peers.server
        status, answer = request_json(self.server, "/connect", {"device_id": device_id})
        assert (status, answer["message_type"], answer["device_info"]) == (200, "device_info", INFO)
        self.id = answer["connection_id"]
        self.found: list[Any] = []

    def send(self, payload: Any) -> None:
        status, pending = request_json(self.server, "/forward", {"connection_id": self.id, "payload": payload})
        assert status == 200
        self.found += pending

    def receive(self) -> Any:
        while not self.found:
            status, found = request_json(self.server, "/poll_messages", {"connection_id": self.id})
            if status != 200:
                return found
            self.found = found
        return self.found.pop(0)

    def close(self) -> None:
        self.server.clock.advance(60)


class EnvelopedClient:
    """`/connect_client`."""

    def __init__(self, peers: Peers, device_id: str) -> None:
        self.socket = peers.pending_client(device_id)
        assert self.socket.receive()["message_type"] == "config"
        assert self.socket.receive() == {"message_type": "device_info", "device_info": INFO}

    def send(self, payload: Any) -> None:
        self.socket.send({"message_type": "forward", "payload": payload})

    def receive(self) -> Any:
        heard = self.socket.receive()
        return heard.get("payload", heard)

    def close(self) -> None:
        self.socket.close()


CLIENTS: dict[str, Callable[[Peers, str], Any]] = {
    "messages": EnvelopedClient,
    "bare": BareClient,
    "long polling": LongPollClient,
    "polling": lambda peers, device_id: LongPollClient(peers, device_id, wait=0),
    "the reference's polling": ReferenceClient,
}


@contextmanager
def both_sockets(tmp_path: Path, **settings: Any) -> Iterator[tuple[SignalingServer, Peers, Path]]:
    path = tmp_path / "operator"
    with SignalingServer(device_socket=path, control_socket=tmp_path / "control", **settings) as server:
        with peers_of(server) as peers:
            yield server, peers, path


def register_local_device(path: Path, device_id: str = DEVICE_ID, **more: Any) -> SeqpacketPeer:
    device = SeqpacketPeer(path)
    device.send({"message_type": "register", "device_id": device_id, "device_info": INFO, **more})
    assert device.receive()["message_type"] == "config"
    return device
