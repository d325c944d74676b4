"""A WebSocket peer on the standard library alone.

For environments that have only the wheel, for measuring without a library between, and for tests of single bytes. It
speaks texts of less than 64 KiB, in one frame each.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import Any

PATIENCE = 20

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""The header fields of a valid upgrade request."""

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
"""The first byte of a frame that is not fragmented."""


def request_head(path: str, headers: dict[str, str], *, version: str = "1.1") -> bytes:
    """A GET request with `Host: localhost`."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **headers}.items())
    return f"GET {path} HTTP/{version}\r\n{fields}\r\n".encode()


def frame(content: bytes, first: int = TEXT) -> bytes:
    """A frame of a client, masked with zeros."""
    length = len(content)
    lengths = struct.pack("!BB", first, 0x80 | length) if length < 126 else struct.pack("!BBH", first, 0xFE, length)
    return lengths + bytes(4) + content


class Raw:
    """A connection that has been upgraded. `headers` replace fields of `UPGRADE`, or add to them."""

    def __init__(
        self, port: int, path: str, tls: ssl.SSLContext | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.socket.sendall(request_head(path, {**UPGRADE, **(headers or {})}))
        self._reader = self.socket.makefile("rb")
        status = self._reader.readline()
        assert b" 101 " in status, status
        while self._reader.readline() != b"\r\n":
            pass

    def __enter__(self) -> Raw:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the socket, without a close frame."""
        self._reader.close()
        self.socket.close()

    def send(self, **message: Any) -> None:
        """Sends a message."""
        self.socket.sendall(frame(json.dumps(message).encode()))

    def receive_frame(self) -> tuple[int, bytes]:
        """Waits for the next frame: its first byte and its content. Raises EOFError at the end of the connection."""
        head = self._reader.read(2)
        if len(head) < 2:
            raise EOFError("the connection has ended")
        first, length = head
        if length == 126:
            (length,) = struct.unpack("!H", self._reader.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._reader.read(8))
        return first, self._reader.read(length)

    def receive(self) -> Any:
        """Waits for the next message; pings are answered on the way."""
        while True:
            first, content = self.receive_frame()
            if first == TEXT:
                return json.loads(content)
            assert first == PING, f"expected a text, received {first:#x} {content!r}"
            self.socket.sendall(frame(content, PONG))

    def receive_end(self) -> tuple[int, str]:
        """Waits for the close frame: its code and reason. Texts and pings before it are dropped."""
        while True:
            first, content = self.receive_frame()
            if first == CLOSE:
                return int.from_bytes(content[:2], "big"), content[2:].decode()

    def round_trip(self) -> None:
        """Returns when the server has read all that was sent before. The peer receives nothing but the pong then."""
        self.socket.sendall(frame(b"", PING))
        first, content = self.receive_frame()
        assert first == PONG, f"expected a pong, received {first:#x} {content!r}"


def register(port: int, device_id: str, **options: Any) -> Raw:
    """A device that has sent `register`."""
    device = Raw(port, "/register_device", **options)
    device.send(message_type="register", device_id=device_id, device_info=1)
    return device


def connect(port: int, device_id: str, path: str = "/connect_client", **options: Any) -> Raw:
    """A client that has sent `connect`."""
    client = Raw(port, path, **options)
    client.send(message_type="connect", device_id=device_id)
    return client
