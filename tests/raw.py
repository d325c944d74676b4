"""A WebSocket peer on the standard library alone.

For environments that have only the wheel, and for measuring with no library between. It speaks texts of less than
64 KiB, in one frame each.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
from typing import Any

PATIENCE = 20


class Raw:
    """A connection, upgraded."""

    def __init__(self, port: int, path: str, tls: ssl.SSLContext | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        head = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        self._reader = self.socket.makefile("rb")
        status = self._reader.readline()
        assert b" 101 " in status, status
        while self._reader.readline() != b"\r\n":
            pass

    def say(self, **message: Any) -> None:
        """Sends a message."""
        self._send(0x81, json.dumps(message).encode())

    def _send(self, first: int, content: bytes) -> None:
        length = len(content)
        lengths = struct.pack("!BB", first, 0x80 | length) if length < 126 else struct.pack("!BBH", first, 0xFE, length)
        self.socket.sendall(lengths + bytes(4) + content)  # Masked, with zeros.

    def hear(self) -> Any:
        """Waits for the next message; pings are answered on the way."""
        while True:
            first, length = self._reader.read(2)
            if length == 126:
                (length,) = struct.unpack("!H", self._reader.read(2))
            content = self._reader.read(length)
            if first == 0x81:
                return json.loads(content)
            assert first == 0x89, f"expected a text, heard {first:#x} {content!r}"
            self._send(0x8A, content)


def register(port: int, device_id: str, **options: Any) -> Raw:
    """A device that has said register."""
    device = Raw(port, "/register_device", **options)
    device.say(message_type="register", device_id=device_id, device_info=1)
    return device


def connect(port: int, device_id: str, path: str = "/connect_client", **options: Any) -> Raw:
    """A client that has said connect."""
    client = Raw(port, path, **options)
    client.say(message_type="connect", device_id=device_id)
    return client
