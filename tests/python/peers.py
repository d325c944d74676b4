"""Peers for tests, on the `websockets` library, which is independent of the server."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from cuttlefish_signaling import SignalingServer

PATIENCE = 20.0
"""Seconds after which a wait fails that takes milliseconds on an idle machine."""

OPERATOR_SUBPROTOCOL = [Subprotocol("webrtc-operator")]
"""Cuttlefish's own devices offer it."""


def interruptible() -> None:
    """For `preexec_fn`: the child handles SIGINT. A shell makes background processes ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], object], *, patience: float = PATIENCE) -> None:
    """Returns when the condition holds. The server runs on a thread of its own, or in another process."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        os.sched_yield()


def replace_file(path: Path, content: str | bytes) -> None:
    """Gives a file new content at once: a server that reads it meanwhile reads the old one or the new one."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_bytes(content if isinstance(content, bytes) else content.encode())
    beside.replace(path)


def assert_returns(function: Callable[[], object]) -> None:
    """Calls the function on a thread, and fails if it does not return."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive(), f"{function} does not return"


def unverified_context() -> ssl.SSLContext:
    """A TLS context that verifies no certificate, as devices do."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class WebSocketPeer:
    """A connected WebSocket peer."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    def send(self, message: Any) -> None:
        """Sends a message as JSON."""
        self.socket.send(json.dumps(message))

    def receive(self) -> Any:
        """The next message, parsed."""
        return json.loads(self.socket.recv(timeout=PATIENCE))

    def wait_closed(self) -> int | None:
        """Waits for the close; returns its code. A message before it is a failure."""
        close_frame = self.wait_close_frame()
        return close_frame[0] if close_frame else None

    def wait_close_frame(self) -> tuple[int, str] | None:
        """Waits for the close; returns code and reason of the close frame, if there was one."""
        try:
            message = self.socket.recv(timeout=PATIENCE)
        except ConnectionClosed as closed:
            return (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else None
        raise AssertionError(f"expected a close, received {message!r}")

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()


class SeqpacketPeer:
    """A peer on a SOCK_SEQPACKET socket."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(str(path))

    def send(self, message: Any) -> None:
        """Sends one packet: bytes as they are, anything else as JSON."""
        self.socket.send(message if isinstance(message, bytes) else json.dumps(message).encode())

    def receive(self) -> Any:
        """The next packet, parsed; None at end of file."""
        text = self.receive_text()
        return json.loads(text) if text else None

    def receive_text(self) -> str:
        """The next packet as it is; empty at end of file."""
        return self.socket.recv(1 << 20).decode()

    def close(self) -> None:
        """Closes the connection."""
        self.socket.close()


class Peers:
    """Connects peers to one server, and closes all of them at the end."""

    def __init__(self, server: SignalingServer, stack: ExitStack) -> None:
        self.server = server
        self._stack = stack

    def connect(self, url: str, **options: Any) -> WebSocketPeer:
        """Connects to this URL."""
        if self.server.tls is not None and url.startswith("wss:"):
            options.setdefault("ssl", self.server.tls.client_context())
        return WebSocketPeer(self._stack.enter_context(connect(url, open_timeout=PATIENCE, close_timeout=1, **options)))

    def device(self, device_id: str = "cvd-1", info: Any = None, **options: Any) -> WebSocketPeer:
        """A device that has registered and received its config."""
        device = self.pending_device(device_id, info, **options)
        assert device.receive()["message_type"] == "config"
        return device

    def pending_device(self, device_id: str = "cvd-1", info: Any = None, **options: Any) -> WebSocketPeer:
        """A device that has sent `register`."""
        device = self.connect(self.server.device_url, **options)
        device.send({"message_type": "register", "device_id": device_id, "device_info": info})
        return device

    def client(self, device_id: str = "cvd-1", **options: Any) -> WebSocketPeer:
        """A client that has received its device info."""
        client = self.pending_client(device_id, **options)
        assert client.receive()["message_type"] == "config"
        assert client.receive()["message_type"] == "device_info"
        return client

    def pending_client(self, device_id: str = "cvd-1", query: str = "", **options: Any) -> WebSocketPeer:
        """A client that has sent `connect`. A `query` is appended to the URL."""
        client = self.connect(self.server.client_url + query, **options)
        client.send({"message_type": "connect", "device_id": device_id})
        return client


@contextmanager
def peers_of(server: SignalingServer) -> Iterator[Peers]:
    """Peers. At the end the ledger of the server has to balance: each forward has one outcome."""
    with ExitStack() as stack:
        yield Peers(server, stack)
    if server.is_running:
        server.stop()
    stats = server.stats()
    assert stats.balances, stats


def assert_relays(client: WebSocketPeer, device: WebSocketPeer, client_id: int = 1) -> None:
    """Relays a payload to the device and another one back."""
    client.send({"message_type": "forward", "payload": {"type": "request-offer"}})
    received = device.receive()
    assert received == {"message_type": "client_msg", "client_id": client_id, "payload": {"type": "request-offer"}}
    device.send({"message_type": "forward", "client_id": client_id, "payload": {"type": "offer"}})
    assert client.receive() == {"message_type": "device_msg", "payload": {"type": "offer"}}
