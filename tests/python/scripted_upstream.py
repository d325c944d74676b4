"""A server behind a proxy whose every byte a test decides, on threads."""

from __future__ import annotations

import base64
import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from peers import PATIENCE

Handler = Callable[[socket.socket], None]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@contextmanager
def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server on loopback, which calls the handler with each connection on a thread. The port."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def handle(connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        try:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            handler(connection)
        except OSError:
            pass  # The peer has gone, or does not trust the certificate.
        finally:
            connection.close()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=handle, args=(connection,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (accepting, *threads):
            thread.join(PATIENCE)
            assert not thread.is_alive()


def read_head(connection: socket.socket) -> bytes:
    """The head of a request, with its empty line."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError(head)
        head += byte
    return head


def field(head: bytes, name: str) -> bytes | None:
    """The value of a field of a head; None without one."""
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.lower() == name.lower().encode():
            return value.strip()
    return None


def accept_upgrade(connection: socket.socket, *fields: bytes) -> bytes:
    """Answers an upgrade with 101 and these fields. Its head."""
    head = read_head(connection)
    digest = hashlib.sha1((field(head, "Sec-WebSocket-Key") or b"") + GUID).digest()
    lines = [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest),
        *fields,
    ]
    connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    return head


def receive(connection: socket.socket, length: int) -> bytes:
    """So many bytes."""
    received = b""
    while len(received) < length:
        part = connection.recv(length - len(received))
        if not part:
            raise ConnectionError(received)
        received += part
    return received
