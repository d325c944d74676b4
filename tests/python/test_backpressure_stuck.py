"""Peers that flood, that do not read, and that write before they read: the others of the device are served."""

from __future__ import annotations

import array
import fcntl
import json
import socket
import termios
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from floods import LONG, MANY, Flood

from cuttlefish_signaling import Keepalive, Limits, PeerClosedError, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

import raw
from peers import PATIENCE, wait_until

WRITE_TIMEOUT = Limits().write_timeout

MORE_THAN_BUFFERS = Flood(5_000, 4_000)
"""20 MB: more than the socket buffers of two connections, and less than a peer may send at once."""

ECHOED = [Flood(int(20_000 * MANY), 20), Flood(int(1_000 * MANY), 4_000)]


@pytest.fixture
def server() -> Iterator[SignalingServer]:
    # No peer is dropped for a missing pong: peers that do not read have to be closed by other rules.
    limits = Limits(ping_per_second=10_000, ping_burst=10_000)
    with SignalingServer(journal=True, keepalive=Keepalive(interval=None), limits=limits) as server:
        yield server


def device_of(server: SignalingServer) -> raw.Raw:
    device = raw.register(server.port, "cvd-1")
    assert device.receive()["message_type"] == "config"
    return prepared(device)


def client_of(server: SignalingServer) -> raw.Raw:
    client = raw.connect(server.port, "cvd-1")
    assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
    return prepared(client)


def prepared(peer: raw.Raw) -> raw.Raw:
    peer.socket.settimeout(LONG)
    return peer


def forwards(payloads: Sequence[Any], client_id: int = 1) -> list[bytes]:
    """The frames of forwards."""
    message = {"message_type": "forward", "client_id": client_id}
    return [raw.frame(json.dumps({**message, "payload": payload}).encode()) for payload in payloads]


@contextmanager
def running(work: Callable[[], object]) -> Iterator[None]:
    """Runs it in a thread meanwhile. The end of the connection ends it."""

    def run() -> None:
        with suppress(OSError, EOFError):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(LONG)
        assert not thread.is_alive()


def test_flooding_client_delays_honest_client_by_its_window(server: SignalingServer) -> None:
    flood = MORE_THAN_BUFFERS.payloads()
    with server.clock.frozen(), device_of(server) as device, client_of(server) as flooder:
        with client_of(server) as honest, running(lambda: flooder.socket.sendall(b"".join(forwards(flood)))):
            wait_until_blocked(flooder, honest)
            honest.send(message_type="forward", payload={"type": "honest"})
            server.journal.expect("honest", timeout=LONG)  # Accepted, while the device takes nothing.
            received = [device.receive() for _ in range(len(flood) + 1)]
        at = next(index for index, message in enumerate(received) if message["client_id"] == 2)
        assert at < len(flood) / 2, f"{at} messages of the flood came first"
        assert [message["payload"] for message in received if message["client_id"] == 1] == flood
        assert server.stats().slow_consumers == 0


def test_honest_client_beside_flooding_client_is_served(server: SignalingServer) -> None:
    flood, honest_payloads = MORE_THAN_BUFFERS.payloads(), [{"n": number} for number in range(200)]
    received: dict[int, list[Any]] = {1: [], 2: []}
    with device_of(server) as device, client_of(server) as flooder, client_of(server) as honest:

        def read() -> None:
            while len(received[1]) < len(flood) or len(received[2]) < len(honest_payloads):
                message = device.receive()
                received[message["client_id"]].append(message["payload"])

        with running(read), running(lambda: flooder.socket.sendall(b"".join(forwards(flood)))):
            for frame in forwards(honest_payloads):
                honest.socket.sendall(frame)
        assert received == {1: flood, 2: honest_payloads}
        for client in (flooder, honest):
            client.round_trip()


def test_other_clients_receive_all_beside_stuck_client(server: SignalingServer) -> None:
    flood = MORE_THAN_BUFFERS.payloads()
    both = [frame for pair in zip(forwards(flood, 1), forwards(flood, 2), strict=True) for frame in pair]
    with device_of(server) as device, client_of(server), client_of(server) as other:
        # Each half is as much as a peer may send at once.
        with running(lambda: device.socket.sendall(b"".join(both[: len(both) // 2]))):
            assert [other.receive()["payload"] for _ in range(len(flood) // 2)] == flood[: len(flood) // 2]
        server.clock.advance(PATIENCE)
        with running(lambda: device.socket.sendall(b"".join(both[len(both) // 2 :]))):
            assert [other.receive()["payload"] for _ in range(len(flood) // 2)] == flood[len(flood) // 2 :]
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        assert server.stats().slow_consumers == 1


def test_client_that_takes_nothing_is_closed_after_a_second(server: SignalingServer) -> None:
    with server.clock.frozen() as clock, device_of(server) as device, client_of(server) as client:
        device.socket.sendall(b"".join(forwards(MORE_THAN_BUFFERS.payloads())))
        device.round_trip()
        assert len(server.clients("cvd-1")) == 1, "a client may take nothing for a second"
        clock.advance(0.9)
        assert len(server.clients("cvd-1")) == 1
        clock.advance(0.2)
        assert server.clients("cvd-1") == []
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        assert client.receive_end() == (1013, "slow consumer")
        device.round_trip()


def test_stuck_device_is_closed_after_write_timeout_and_its_clients_notified(server: SignalingServer) -> None:
    with server.clock.frozen() as clock, device_of(server) as device:
        with client_of(server) as flooder, client_of(server) as quiet:
            with running(lambda: flooder.socket.sendall(b"".join(forwards(MORE_THAN_BUFFERS.payloads())))):
                wait_until_blocked(flooder, quiet)
                clock.advance(WRITE_TIMEOUT - 0.1)
                assert len(server.devices()) == 1
                wait_until(lambda: clock.advance(WRITE_TIMEOUT) and server.devices() == [])
                for client in (flooder, quiet):
                    assert client.receive() == {"error": "Device disconnected"}
                    assert client.receive_end()[0] == 1000
            assert device.receive_end() == (1013, "slow consumer")


def wait_until_blocked(peer: raw.Raw, other: raw.Raw) -> None:
    """Returns when the server reads the peer no more: its unsent bytes stay the same while another is served."""
    same, before = 0, 0
    while same < 30:
        other.round_trip()
        now = unsent(peer.socket)
        same, before = (same + 1 if now == before > 0 else 0), now


def unsent(peer: socket.socket) -> int:
    """The bytes that the kernel has not sent yet or that are not acknowledged (`SIOCOUTQ`)."""
    pending = array.array("i", [0])
    fcntl.ioctl(peer, termios.TIOCOUTQ, pending)
    return pending[0]


def test_kit_says_close_of_stuck_device(server: SignalingServer) -> None:
    sent = threading.Event()
    with FakeDevice(server) as device, FakeClient(server, timeout=PATIENCE) as client:
        device.stall()
        errors: list[PeerClosedError] = []

        def send() -> None:
            try:
                for payload in MORE_THAN_BUFFERS.payloads():
                    client.send(payload)
                    sent.set()
            except PeerClosedError as error:
                errors.append(error)

        with server.clock.frozen() as clock, running(send):
            assert sent.wait(PATIENCE)
            wait_until(lambda: clock.advance(WRITE_TIMEOUT) and server.devices() == [])
        (error,) = errors
        assert (error.code, error.error) == (1000, "Device disconnected")
        device.resume()
        assert device.wait_closed(PATIENCE) == 1013
        with pytest.raises(PeerClosedError, match=r"\[1013\] 'slow consumer'"):
            while True:
                device.recv(PATIENCE)


@pytest.mark.parametrize("flood", ECHOED, ids=["20 bytes", "4,000 bytes"])
@pytest.mark.parametrize("first", ["client", "device"])
def test_echo_of_peers_that_write_before_they_read(server: SignalingServer, first: str, flood: Flood) -> None:
    payloads = flood.payloads()
    with device_of(server) as device, client_of(server) as client:
        writer, echoing = (client, device) if first == "client" else (device, client)

        def echo() -> None:
            for _ in payloads:
                (frame,) = forwards([echoing.receive()["payload"]])
                echoing.socket.sendall(frame)

        with running(echo):
            for frame in forwards(payloads):
                writer.socket.sendall(frame)
            assert [writer.receive()["payload"] for _ in payloads] == payloads
