"""Peers for tests, on the `websockets` library: an implementation that is not ours."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from cuttlefish_signaling import SignalingServer

PATIENCE = 20.0
"""Seconds for what takes milliseconds when all is well."""


def interruptible() -> None:
    """As `preexec_fn`: the child hears Ctrl-C, though shells have what they start in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class WebSocketPeer:
    """A peer, connected."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, message: Any) -> None:
        """Sends a message as JSON."""
        self.socket.send(json.dumps(message))

    def receive(self) -> Any:
        """The next message, parsed."""
        return json.loads(self.socket.recv(timeout=PATIENCE))

    def wait_closed(self) -> int | None:
        """Waits for the close; returns its code. A message that comes first is a failure."""
        try:
            message = self.socket.recv(timeout=PATIENCE)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None
        raise AssertionError(f"expected a close, heard {message!r}")

    def close(self) -> None:
        """Closes."""
        self.socket.close()


class SeqpacketPeer:
    """A peer on a local socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))

    def send(self, message: Any) -> None:
        """One packet."""
        self.socket.send(message if isinstance(message, bytes) else json.dumps(message).encode())

    def receive(self) -> Any:
        """The next packet, parsed; None at the end."""
        text = self.receive_text()
        return json.loads(text) if text else None

    def receive_text(self) -> str:
        """The next packet as it is; empty at the end."""
        return self.socket.recv(1 << 20).decode()

    def close(self) -> None:
        """Closes."""
        self.socket.close()


class Peers:
    """Dials peers of one server, and hangs up for all of them at the end."""

    def __init__(self, server: SignalingServer, stack: ExitStack) -> None:
        self.server = server
        self._stack = stack

    def connect(self, url: str, **options: Any) -> WebSocketPeer:
        """Connects to this URL."""
        if self.server.tls is not None:
            options.setdefault("ssl", self.server.tls.client_context())
        return WebSocketPeer(self._stack.enter_context(connect(url, open_timeout=PATIENCE, close_timeout=1, **options)))

    def device(self, device_id: str = "cvd-1", info: Any = None, **options: Any) -> WebSocketPeer:
        """A device that has registered and got its config."""
        device = self.connect(self.server.device_url, **options)
        device.send({"message_type": "register", "device_id": device_id, "device_info": info})
        assert device.receive()["message_type"] == "config"
        return device

    def client(self, device_id: str = "cvd-1", **options: Any) -> WebSocketPeer:
        """A client that has its device info."""
        client = self.pending_client(device_id, **options)
        assert client.receive()["message_type"] == "config"
        assert client.receive()["message_type"] == "device_info"
        return client

    def pending_client(self, device_id: str = "cvd-1", **options: Any) -> WebSocketPeer:
        """A client that has said connect."""
        client = self.connect(self.server.client_url, **options)
        client.send({"message_type": "connect", "device_id": device_id})
        return client


@contextmanager
def peers_of(server: SignalingServer) -> Iterator[Peers]:
    """Peers, and at the end a look into the books: every forward has come to one of its ends."""
    with ExitStack() as stack:
        yield Peers(server, stack)
    if server.is_running:
        server.stop()
    stats = server.stats()
    assert stats.balances, stats


def assert_relays(client: WebSocketPeer, device: WebSocketPeer, client_id: int = 1) -> None:
    """A payload goes there and another one back."""
    client.send({"message_type": "forward", "payload": {"type": "request-offer"}})
    heard = device.receive()
    assert heard == {"message_type": "client_msg", "client_id": client_id, "payload": {"type": "request-offer"}}
    device.send({"message_type": "forward", "client_id": client_id, "payload": {"type": "offer"}})
    assert client.receive() == {"message_type": "device_msg", "payload": {"type": "offer"}}
