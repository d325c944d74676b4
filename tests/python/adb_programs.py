"""For tests of adb: a device that speaks adb, a forwarder as `cvdr` has one, and Debian's `adb`."""

from __future__ import annotations

import hashlib
import os
import queue
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ports import free_port
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from peers import PATIENCE, wait_until

CNXN, OPEN, OKAY, CLSE, WRTE = b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE"
VERSION, MAX_PAYLOAD = 0x01000001, 1024 * 1024
"""The version without checksums, and adb's longest payload."""


class AdbDevice:
    """The adb port of a device: it answers CNXN and a few services, in the protocol of adb's transport."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.digests: queue.Queue[str] = queue.Queue()
        """SHA-256 of what each `exec:sink` was sent."""
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        with suppress(ConnectionError, OSError), stream:
            command = _receive(stream)[0]
            assert command == CNXN, command
            _send(stream, CNXN, VERSION, MAX_PAYLOAD, b"device::ro.product.name=cvd;ro.product.model=cvd;")
            while True:
                command, theirs, _, service = _receive(stream)
                if command == OPEN:
                    self._run(stream, theirs, service.rstrip(b"\0").decode())

    def _run(self, stream: socket.socket, theirs: int, service: str) -> None:
        """Serves one stream of the connection, up to its end."""
        _send(stream, OKAY, 1, theirs)
        name, _, argument = service.partition(" ")
        if name == "exec:sink":
            digest = hashlib.sha256()
            while (packet := _receive(stream))[0] == WRTE:
                digest.update(packet[3])
                _send(stream, OKAY, 1, theirs)
            self.digests.put(digest.hexdigest())
        else:
            output = pattern(int(argument)) if name == "exec:source" else f"{service}\n".encode()
            for start in range(0, len(output), MAX_PAYLOAD):
                _send(stream, WRTE, 1, theirs, output[start : start + MAX_PAYLOAD])
                assert _receive(stream)[0] == OKAY
        _send(stream, CLSE, 1, theirs)

    def close(self) -> None:
        self.listener.close()


def pattern(size: int) -> bytes:
    """Bytes of which no part is like another."""
    return hashlib.shake_128(b"adb").digest(size)


def _send(stream: socket.socket, command: bytes, first: int, second: int, data: bytes = b"") -> None:
    (number,) = struct.unpack("<I", command)
    stream.sendall(struct.pack("<4sIIIII", command, first, second, len(data), 0, number ^ 0xFFFFFFFF) + data)


def _receive(stream: socket.socket) -> tuple[bytes, int, int, bytes]:
    command, first, second, length, _, _ = struct.unpack("<4sIIIII", _exactly(stream, 24))
    return command, first, second, _exactly(stream, length)


def _exactly(stream: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = stream.recv(size - len(data))
        if not part:
            raise ConnectionError("the other side has closed")
        data += part
    return bytes(data)


class Forwarder:
    """Carries TCP connections to a WebSocket of adb, as `cvdr` does. adb connects to `address`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                stream, _ = self.listener.accept()
                threading.Thread(target=self._carry, args=(stream,), daemon=True).start()

    def _carry(self, stream: socket.socket) -> None:
        with connect(self.url, open_timeout=PATIENCE, max_size=None) as client:
            threading.Thread(target=self._to_adb, args=(stream, client), daemon=True).start()
            with suppress(ConnectionClosed, OSError):
                while data := stream.recv(32 * 1024):
                    client.send(data)

    @staticmethod
    def _to_adb(stream: socket.socket, client: ClientConnection) -> None:
        with suppress(OSError):
            for message in client:
                assert isinstance(message, bytes)
                stream.sendall(message)
        # Wakes the other thread as well.
        with suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
        stream.close()

    def close(self) -> None:
        self.listener.close()


class Adb:
    """Debian's adb, with a server of its own."""

    def __init__(self, directory: Path, port: int) -> None:
        program = shutil.which("adb")
        assert program is not None
        self.command = [program, "-P", str(port)]
        self.environment = {**os.environ, "HOME": str(directory), "TMPDIR": str(directory), "ADB_LIBUSB": "0"}

    def start(self, log: Path) -> subprocess.Popen[bytes]:
        """Starts its server, in the foreground of a process of its own."""
        with log.open("wb") as output:
            return subprocess.Popen(
                [*self.command, "nodaemon", "server"], stdout=output, stderr=output, env=self.environment
            )

    def __call__(self, *arguments: str, data: bytes | None = None) -> bytes:
        """Runs a command of adb; returns its output."""
        done = subprocess.run(
            [*self.command, *arguments],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            timeout=3 * PATIENCE,
            env=self.environment,
        )
        assert done.returncode == 0, (arguments, done.stdout[:1000], done.stderr[:1000])
        return done.stdout


@contextmanager
def debian_adb(directory: Path) -> Iterator[Adb]:
    """Runs adb with a server of its own, which ends with the block."""
    port = free_port()
    adb = Adb(directory, port)
    process = adb.start(directory / "adb.log")

    def listens() -> bool:
        assert process.poll() is None, (directory / "adb.log").read_text(errors="replace")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        wait_until(listens)
        yield adb
    finally:
        process.terminate()
        process.wait(PATIENCE)
