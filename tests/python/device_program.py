"""Runs `tests/device/device.c`, a device on libwebsockets, and the command line's server beside it, as processes."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from websockets.sync.client import connect

from peers import PATIENCE, WebSocketPeer, unverified_context

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "target/device/device"
RECONNECT_MS = 50
LOST = 3
"""The exit status of a device that never reconnects."""


def build() -> None:
    """Builds the program if it is missing or older than its source. The test fails if the build fails."""
    target = str(PROGRAM.relative_to(ROOT))
    made = subprocess.run(["make", "--silent", target], cwd=ROOT, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.fail(f"`make {target}` in {ROOT} failed: {made.stderr}", pytrace=False)


ProcessT = TypeVar("ProcessT", bound="Process")


class Process:
    """A child process that can be frozen and is always ended."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def _spawn(self, arguments: list[str], **options: Any) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, **options)
        return self.process

    @property
    def running(self) -> subprocess.Popen[str]:
        """The process, which has to be started."""
        assert self.process is not None, "not started"
        return self.process

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open, and it answers nothing."""
        self.running.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.running.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL: no close frame, no close_notify."""
        self.running.kill()
        self.running.wait(PATIENCE)

    def __enter__(self: ProcessT) -> ProcessT:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process, also if it is frozen."""
        if self.process is not None:
            self.kill()
            for stream in (self.process.stdin, self.process.stdout):
                with suppress(BrokenPipeError):  # The process ended before it read a command.
                    if stream is not None:
                        stream.close()


class Server(Process):
    """`cuttlefish-signaling serve`, over TLS, on one port through all its restarts."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        super().__init__()
        self._log = directory / "server.log"
        self._arguments = arguments
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("CUTTLEFISH_SIGNALING_")}
        self._environment["XDG_STATE_HOME"] = str(directory / "state")
        self._port = "0"
        self.start()

    def start(self) -> None:
        """Starts the server; returns when it listens."""
        command = [sys.executable, "-m", "cuttlefish_signaling", "serve", "--port", self._port, *self._arguments]
        with self._log.open("a") as log:
            process = self._spawn(command, stderr=log, env=self._environment)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("devices: wss://"), self._log.read_text()
        self.device_url = first.removeprefix("devices: ").strip()
        self._port = self.device_url.rpartition(":")[2].partition("/")[0]

    def stop(self) -> None:
        """SIGTERM: each peer is closed with 1001."""
        self.running.terminate()
        assert self.running.wait(PATIENCE) == 0, self._log.read_text()

    @contextmanager
    def client(self, device_id: str) -> Iterator[WebSocketPeer]:
        """A client of this device that has received its config and its device info."""
        url = self.device_url.replace("/register_device", "/connect_client")
        with connect(url, ssl=unverified_context(), open_timeout=PATIENCE, close_timeout=PATIENCE) as socket:
            client = WebSocketPeer(socket)
            client.send({"message_type": "connect", "device_id": device_id})
            assert client.receive()["message_type"] == "config"
            assert client.receive() == {
                "message_type": "device_info",
                "device_info": {"library": "libwebsockets"},
            }
            yield client


class Device(Process):
    """The program; `device.c` has the list of its events."""

    def __init__(
        self, url: str, device_id: str = "cvd-1", *, reconnect_ms: int = RECONNECT_MS, ping: int = 3, hangup: int = 10
    ) -> None:
        super().__init__()
        self.id = device_id
        self.seen: list[str] = []
        self._events: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        command = [str(PROGRAM), url, device_id, str(reconnect_ms), str(ping), str(hangup)]
        self._spawn(command, stdin=subprocess.PIPE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.running.stdout is not None
        for line in self.running.stdout:
            self._events.put(line.strip())
        self._events.put(None)

    def __exit__(self, *_: object) -> None:
        """Ends the process, and reads all of its output."""
        self.kill()
        self._reader.join(PATIENCE)
        super().__exit__()

    def event(self) -> str:
        """The next event, pongs aside."""
        while (event := self._next(PATIENCE)) == "pong":
            pass
        return event

    def until(self, *beginnings: str) -> None:
        """For each of these in turn, reads events until one begins with it. A lost device is an error."""
        for beginning in beginnings:
            deadline = time.monotonic() + PATIENCE
            while not (event := self._next(deadline - time.monotonic())).startswith(beginning):
                assert event != "lost", f"lost, waiting for {beginning!r}: {self.seen}"

    def _next(self, timeout: float) -> str:
        try:
            event = self._events.get(timeout=max(timeout, 0))
        except queue.Empty:
            raise AssertionError(f"no event within {timeout:.0f} s: {self.seen}") from None
        assert event is not None, f"the device ended: {self.seen}"
        self.seen.append(event)
        return event

    def ends(self) -> int:
        """Waits until it exits; returns its status."""
        return self.running.wait(PATIENCE)

    def _command(self, line: str) -> None:
        assert self.running.stdin is not None
        try:
            self.running.stdin.write(f"{line}\n")
            self.running.stdin.flush()
        except BrokenPipeError:
            while True:  # Reads all events; the end of the process is an error.
                self._next(PATIENCE)

    def forward(self, client_id: int, payload: Any) -> None:
        """Makes the device forward this to a client."""
        self._command(f"forward {client_id} {json.dumps(payload)}")

    def send(self, text: str) -> None:
        """Makes the device send this text."""
        self._command(f"say {text}")

    def quit(self) -> None:
        """Makes the device exit without a close frame, and waits for that."""
        self._command("quit")
        assert self.ends() == 0, self.seen


def registered(server: Server, device_id: str = "cvd-1", **options: int) -> Device:
    """A device that has registered on the first attempt."""
    device = Device(server.device_url, device_id, **options)
    assert device.event() == "connected"
    assert device.event().startswith("config ")
    return device


def assert_relays(client: WebSocketPeer, device: Device, peer: str = "new|old") -> int:
    """Relays a payload to the device and back, and another one on command. Returns the client id."""
    client.send({"message_type": "forward", "payload": {"type": "request-offer"}})
    kind, client_id, known = device.event().split()
    assert kind == "peer" and known in peer.split("|"), device.seen
    assert device.event() == f'message {client_id} {{"type": "request-offer"}}'
    echo = {"type": "answer", "echo": {"type": "request-offer"}}
    assert client.receive() == {"message_type": "device_msg", "payload": echo}
    device.forward(int(client_id), {"type": "offer", "sdp": "v=0"})
    assert client.receive() == {"message_type": "device_msg", "payload": {"type": "offer", "sdp": "v=0"}}
    return int(client_id)
