"""Peers of every kind that send and receive many messages, for tests of backpressure, and a server to measure."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuttlefish_signaling.testing import AsyncFakeClient, AsyncFakeDevice, FakeClient, FakeDevice

import raw
from peers import PATIENCE, SeqpacketPeer

MANY = float(os.environ.get("FLOOD_SCALE", "0.1"))
"""The share of the full counts that is sent: `make soak` sets 1."""

LONG = 10 * PATIENCE
"""Seconds for a whole flood."""


@dataclass(frozen=True)
class Flood:
    """A number of payloads of one size."""

    count: int
    size: int

    def payloads(self) -> list[str]:
        """Different payloads: numbers, padded to `size` bytes as JSON strings."""
        return [f"{number:0{self.size - 2}d}" for number in range(self.count)]


SMALL = Flood(int(20_000 * MANY), 20)
LARGE = Flood(int(5_000 * MANY), 4_000)

SERVER = """
import json, sys
from cuttlefish_signaling import Limits, SignalingServer
workers, folder = int(sys.argv[1]), sys.argv[2]
# A polled client would be refused above these rates, where others are only read later.
limits = Limits(request_per_second=1_000_000, request_burst=1_000_000)
sockets = {"device_socket": f"{folder}/device", "control_socket": f"{folder}/control"}
server = SignalingServer(limits=limits, workers=workers, **sockets).start()
print(server.port, flush=True)
sys.stdin.read()
server.stop()
stats = server.stats()
print(json.dumps({**vars(stats), "balances": stats.balances}))
"""


class ServerProcess:
    """A server in a process of its own, so that its memory can be measured."""

    def __init__(self, workers: int, folder: Path) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(workers), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> Any:
        """Stops it. Returns its counters."""
        told, _ = self._process.communicate(timeout=PATIENCE)
        return json.loads(told)

    def _status(self, field: str) -> int:
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    @contextmanager
    def growth_at_most(self, kib: int) -> Iterator[None]:
        """Checks how much its resident memory grows at the most while the block runs."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")  # Resets VmHWM.
        before = self._status("VmRSS")
        yield
        grown = self._status("VmHWM") - before
        assert grown <= kib, f"the server grew by {grown} KiB"


class RawPeer:
    """A WebSocket without a library. `how` is `loop` (a system call for each message) or `write` (one for all)."""

    def __init__(self, peer: raw.Raw) -> None:
        peer.socket.settimeout(LONG)
        self.raw = peer

    def frame(self, payload: str, client_id: int) -> bytes:
        message = {"message_type": "forward", "client_id": client_id, "payload": payload}
        return raw.frame(json.dumps(message).encode())

    def send(self, payloads: Sequence[str], how: str, client_id: int = 1) -> None:
        frames = [self.frame(payload, client_id) for payload in payloads]
        for data in [b"".join(frames)] if how == "write" else frames:
            self.raw.socket.sendall(data)

    def receive(self, count: int) -> list[Any]:
        return [self.raw.receive()["payload"] for _ in range(count)]

    def close(self) -> None:
        self.raw.__exit__()


class BareClient(RawPeer):
    """A client of `WS /devices/{id}/connect`: each text is a payload."""

    def frame(self, payload: str, client_id: int) -> bytes:
        return raw.frame(json.dumps(payload).encode())


def raw_device(server: ServerProcess, device_id: str) -> RawPeer:
    device = raw.register(server.port, device_id)
    assert device.receive()["message_type"] == "config"
    return RawPeer(device)


def raw_client(server: ServerProcess, device_id: str) -> RawPeer:
    client = raw.connect(server.port, device_id)
    assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
    return RawPeer(client)


def bare_client(server: ServerProcess, device_id: str) -> BareClient:
    client = raw.Raw(server.port, f"/devices/{urllib.parse.quote(device_id)}/connect")
    assert "device_info" in client.receive()
    return BareClient(client)


class LocalDevice:
    """A device on the device socket."""

    def __init__(self, server: ServerProcess, device_id: str) -> None:
        self.peer = SeqpacketPeer(server.folder / "device")
        self.peer.send({"message_type": "register", "device_id": device_id, "device_info": {}})
        assert self.peer.receive()["message_type"] == "config"

    def send(self, payloads: Sequence[str], how: str, client_id: int = 1) -> None:
        for payload in payloads:
            self.peer.send({"message_type": "forward", "client_id": client_id, "payload": payload})

    def receive(self, count: int) -> list[Any]:
        return [self.peer.receive()["payload"] for _ in range(count)]

    def close(self) -> None:
        self.peer.close()


class SyncPeer:
    """A peer of the synchronous kit."""

    def __init__(self, peer: FakeDevice | FakeClient) -> None:
        self.peer = peer.start()

    def send(self, payloads: Sequence[str], how: str, client_id: int = 1) -> None:
        to = (client_id,) if isinstance(self.peer, FakeDevice) else ()
        for payload in payloads:
            self.peer.send(payload, *to)

    def receive(self, count: int) -> list[Any]:
        return [self.peer.recv(LONG).payload for _ in range(count)]

    def close(self) -> None:
        self.peer.close()


class AsyncPeer:
    """A peer of the asynchronous kit, on an event loop in a thread. `write` sends all payloads at once."""

    def __init__(self, peer: AsyncFakeDevice | AsyncFakeClient) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.peer = peer
        self.run(self.peer.start())

    def run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LONG)

    def send(self, payloads: Sequence[str], how: str, client_id: int = 1) -> None:
        to: Any = (client_id,) if isinstance(self.peer, AsyncFakeDevice) else ()

        async def send() -> None:
            if how == "write":
                await asyncio.gather(*(self.peer.send(payload, *to) for payload in payloads))
            else:
                for payload in payloads:
                    await self.peer.send(payload, *to)

        self.run(send())

    def receive(self, count: int) -> list[Any]:
        async def receive() -> list[Any]:
            return [(await self.peer.recv(LONG)).payload for _ in range(count)]

        return list(self.run(receive()))

    def close(self) -> None:
        try:
            self.run(self.peer.close())
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self.thread.join()
            self.loop.close()


class PolledPeer:
    """A client that polls. `write` sends all requests before it reads the first answer (pipelining)."""

    def __init__(self, server: ServerProcess, device_id: str) -> None:
        self.sending = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
        self.polling = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LONG)
        answer = self.post("/polled_connections", {"device_id": device_id})
        self.path, self.start = f"/polled_connections/{answer['connection_id']}", 0

    def post(self, path: str, body: Any) -> Any:
        self.sending.request("POST", path, json.dumps(body))
        response = self.sending.getresponse()
        answer = json.loads(response.read())
        assert response.status == 200, (response.status, answer)
        return answer

    def send(self, payloads: Sequence[str], how: str, client_id: int = 1) -> None:
        if how == "write":
            self.pipeline(payloads)
            return
        for payload in payloads:
            assert self.post(f"{self.path}/:forward", {"payload": payload}) == "ok"

    def pipeline(self, payloads: Sequence[str]) -> None:
        bodies = [json.dumps({"payload": payload}).encode() for payload in payloads]
        head = f"POST {self.path}/:forward HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
        requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        assert self.sending.sock is not None
        writing = threading.Thread(target=self.sending.sock.sendall, args=(b"".join(requests),))
        writing.start()
        with self.sending.sock.makefile("rb") as answers:
            for _ in payloads:
                status = answers.readline()
                length = 0
                while (line := answers.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                assert (status.split()[1], answers.read(length)) == (b"200", b'"ok"'), status
        writing.join()

    def receive(self, count: int) -> list[Any]:
        received: list[Any] = []
        while len(received) < count:
            self.polling.request("GET", f"{self.path}/messages?start={self.start}&wait=10")
            response = self.polling.getresponse()
            found = json.loads(response.read())
            assert response.status == 200, (response.status, found)
            received += [message["payload"] for message in found]
            self.start += len(found)
        return received

    def close(self) -> None:
        self.sending.close()
        self.polling.close()


DEVICES: dict[str, Callable[[ServerProcess, str], Any]] = {
    "raw": raw_device,
    "local": LocalDevice,
    "sync": lambda server, device_id: SyncPeer(FakeDevice(server.url, device_id)),
    "async": lambda server, device_id: AsyncPeer(AsyncFakeDevice(server.url, device_id)),
}

CLIENTS: dict[str, Callable[[ServerProcess, str], Any]] = {
    "raw": raw_client,
    "bare": bare_client,
    "polled": PolledPeer,
    "sync": lambda server, device_id: SyncPeer(FakeClient(server.url, device_id)),
    "async": lambda server, device_id: AsyncPeer(AsyncFakeClient(server.url, device_id)),
}


@contextmanager
def pair(server: ServerProcess, device_kind: str, client_kind: str, device_id: str) -> Iterator[tuple[Any, Any]]:
    """A device and a client of it."""
    with ExitStack() as stack:
        peers = []
        for kinds, kind in ((DEVICES, device_kind), (CLIENTS, client_kind)):
            peers.append(kinds[kind](server, device_id))
            stack.callback(peers[-1].close)
        yield peers[0], peers[1]


def relay(sender: Any, receiver: Any, payloads: Sequence[str], how: str) -> None:
    """Sends the payloads while the receiver receives. Each has to arrive, in order."""
    with ThreadPoolExecutor(1) as pool:
        receiving = pool.submit(receiver.receive, len(payloads))
        sender.send(payloads, how)
        received = receiving.result(LONG)
    assert len(received) == len(payloads)
    assert received == list(payloads)
