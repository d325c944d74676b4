"""Fake devices with a profile react to errors, closes and restarts as real devices do (docs/protocol.md 4, 6)."""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Literal

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from cuttlefish_signaling import ConfigError, DeviceLostError, PeerClosedError, SignalingServer, WaitTimeoutError
from cuttlefish_signaling.testing import AsyncFakeDevice, Cassette, FakeClient, FakeDevice, ReplayDevice
from cuttlefish_signaling.testing._cassette import Line
from cuttlefish_signaling.testing._device import MAX_RECONNECTS

PATIENCE = 20.0
BACKOFF = 0.01
LONG_BACKOFF = 0.1
"""For tests in which another message has to arrive before the reconnect."""
PROFILES: list[Literal["legacy", "current"]] = ["legacy", "current"]


class Operator:
    """A server that accepts each device, and then sends the messages of the test."""

    def __init__(self) -> None:
        self._arrived: queue.Queue[ServerConnection] = queue.Queue()
        self.names: list[str] = []
        self.refusals = 0
        """The number of requests that are still refused before the upgrade."""
        self.closes_at_once = False
        """Whether it sends an error and a close to each device from now on."""
        self._server = serve(self._handle, "127.0.0.1", 0, process_request=self._admit, compression=None)
        self.url = f"ws://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _admit(self, connection: ServerConnection, request: Any) -> Any:
        if self.refusals:
            self.refusals -= 1
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "busy")
        return None

    def _handle(self, connection: ServerConnection) -> None:
        try:
            self.names.append(json.loads(connection.recv())["device_id"])
            connection.send('{"message_type":"config","ice_servers":[]}')
            closes = self.closes_at_once  # As it was before the test has this connection.
            self._arrived.put(connection)
            if closes:
                send_error_and_close(connection, "Device already registered", 1008)
            while True:
                connection.recv()
        except ConnectionClosed:
            pass

    def next(self) -> ServerConnection:
        """The next device that has registered."""
        return self._arrived.get(timeout=PATIENCE)

    def stop(self) -> None:
        """Stops."""
        self._server.shutdown()
        self._thread.join()


def send_error_and_close(connection: ServerConnection, error: str, code: int) -> None:
    """Sends an error and a close frame, as servers do that do not know real devices.

    Both are sent by one write: the device receives the close frame before it can reconnect because of the error.
    """
    with connection.protocol_mutex:
        connection.protocol.send_text(json.dumps({"error": error}).encode())
        connection.protocol.send_close(code, error)
        connection.socket.sendall(b"".join(connection.protocol.data_to_send()))
    connection.close()


@pytest.fixture
def operator() -> Iterator[Operator]:
    operator = Operator()
    yield operator
    operator.stop()


@pytest.mark.parametrize("profile", PROFILES)
def test_device_reconnects_after_each_close(operator: Operator, profile: Literal["legacy", "current"]) -> None:
    with FakeDevice(operator.url, profile=profile, backoff=BACKOFF) as device:
        for times in (1, 2, 3):
            operator.next().close(1008, "closed by test")
            device.wait_reconnected(times, PATIENCE)
        assert (device.reconnects, device.extra_connections, device.is_lost) == (3, 0, False)
        with pytest.raises(WaitTimeoutError, match="for reconnect 4; reconnects so far: 3"):
            device.wait_reconnected(4, timeout=0.05)


def test_backoff_doubles_on_failure_and_resets_on_close(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    reconnect = AsyncFakeDevice._reconnect

    async def at_once(device: AsyncFakeDevice, cause: str, wait: float) -> None:
        waits.append(wait)
        await reconnect(device, cause, 0)

    monkeypatch.setattr(AsyncFakeDevice, "_reconnect", at_once)
    with FakeDevice(operator.url, profile="legacy") as device:
        for times in (1, 2):
            operator.next().close()
            device.wait_reconnected(times, PATIENCE)
        operator.refusals = 8
        operator.next().close()
        device.wait_reconnected(3, PATIENCE)
        operator.next().close()
        device.wait_reconnected(4, PATIENCE)
    assert waits == [1, 1, 1, 2, 4, 8, 16, 32, 60, 60, 60, 1]


def test_error_then_close_loses_legacy_device(operator: Operator) -> None:
    with FakeDevice(operator.url, profile="legacy", backoff=LONG_BACKOFF) as device:
        send_error_and_close(operator.next(), "Internal error", 1011)
        assert device.wait_closed(PATIENCE) == 1011
        assert device.is_lost
        assert device.lost_reason == (
            "device 'cvd-1' is lost: it had the error 'Internal error', then the close [1011] 'Internal error'; "
            "a real legacy device does not reconnect after that"
        )
        waits: list[Any] = [
            lambda: device.recv(None),
            lambda: device.wait_reconnected(timeout=None),
            lambda: next(iter(device)),
            lambda: device.send(1, 1),
        ]
        for wait in waits:
            with pytest.raises(DeviceLostError, match="is lost: it had the error 'Internal error'") as lost:
                wait()
            assert (lost.value.error, lost.value.code) == ("Internal error", 1011)
        # This device waits longer before it reconnects than the lost one would.
        with FakeDevice(operator.url, "cvd-2", profile="legacy", backoff=2 * LONG_BACKOFF) as other:
            operator.next().close()
            other.wait_reconnected(1, PATIENCE)
        assert operator.names == ["cvd-1", "cvd-2", "cvd-2"]


def test_lost_device_can_be_started_again(operator: Operator) -> None:
    device = FakeDevice(operator.url, profile="legacy", backoff=LONG_BACKOFF)
    for _ in range(2):
        with device:
            assert not device.is_lost
            send_error_and_close(operator.next(), "Internal error", 1011)
            device.wait_closed(PATIENCE)
            assert device.is_lost


def test_two_errors_lose_legacy_device(operator: Operator) -> None:
    with FakeDevice(operator.url, profile="legacy") as device:
        connection = operator.next()
        connection.send('{"error":"one"}')
        connection.send('{"error":"two"}')
        with pytest.raises(DeviceLostError, match="it had the error 'one', then the error 'two'"):
            device.wait_reconnected(timeout=PATIENCE)
        assert not device.is_open


def test_error_alone_opens_second_connection_of_legacy_device(operator: Operator) -> None:
    with FakeDevice(operator.url, profile="legacy", backoff=BACKOFF) as device:
        operator.next().send('{"error":"Forward failed: Unknown client 9"}')
        second = operator.next()
        device.wait_reconnected(1, PATIENCE)
        assert (device.extra_connections, device.is_lost, device.is_open) == (1, False, True)
        second.close(1008, "Device already registered: cvd-1")
        with pytest.raises(DeviceLostError, match="Unknown client 9', a second connection, then the close .1008."):
            device.wait_reconnected(2, PATIENCE)
        assert not device.is_open


def test_repeated_error_and_close_multiply_connections_of_current_device(operator: Operator) -> None:
    with FakeDevice(operator.url, profile="current", backoff=BACKOFF) as device:
        first = operator.next()
        operator.closes_at_once = True
        send_error_and_close(first, "Device already registered: cvd-1", 1008)
        for _ in range(10 * MAX_RECONNECTS):
            operator.next()
            assert len(device._peer._connections) + len(device._peer._scheduled) <= MAX_RECONNECTS
        assert device.extra_connections > 0
        assert not device.is_lost


def test_error_then_close_opens_two_connections_of_current_device(operator: Operator) -> None:
    with FakeDevice(operator.url, profile="current", backoff=LONG_BACKOFF) as device:
        send_error_and_close(operator.next(), "Internal error", 1011)
        first, second = operator.next(), operator.next()
        device.wait_reconnected(2, PATIENCE)
        assert device.extra_connections == 1
        # The device uses the connection that is left.
        second.close()
        operator.next()
        first.close()
        operator.next()
        device.wait_reconnected(4, PATIENCE)
        assert device.is_open


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("text", ['{"message_type":"news"}', '{"client_id":1}', "{", "[]"])
def test_unknown_message_breaks_connection(
    operator: Operator, profile: Literal["legacy", "current"], text: str
) -> None:
    with FakeDevice(operator.url, profile=profile, backoff=BACKOFF) as device:
        connection = operator.next()
        connection.send(text)
        device.wait_reconnected(1, PATIENCE)
        assert not device.is_lost
    with FakeDevice(operator.url) as device:
        operator.next()
        operator.next().send(text)
        assert device.recv(message_type="news" if "news" in text else "broken").text == text
        assert device.is_open


@pytest.mark.parametrize("profile", PROFILES)
def test_tolerant_device_ignores_errors(operator: Operator, profile: Literal["legacy", "current"]) -> None:
    with FakeDevice(operator.url, profile=profile, backoff=BACKOFF, tolerant=True) as device:
        send_error_and_close(operator.next(), "Internal error", 1011)
        operator.next().send("{")
        device.wait_reconnected(1, PATIENCE)
        assert device.recv(message_type="broken").text == "{"
        assert (device.errors, device.is_open, device.extra_connections) == (["Internal error"], True, 0)


def test_device_without_profile_does_not_reconnect(operator: Operator) -> None:
    with FakeDevice(operator.url, backoff=0) as device:
        connection = operator.next()
        connection.send('{"error":"Forward failed: Unknown client 9"}')
        assert device.recv(message_type="error").error == "Forward failed: Unknown client 9"
        send_error_and_close(connection, "Internal error", 1011)
        assert device.wait_closed(PATIENCE) == 1011
        with pytest.raises(PeerClosedError, match=r"closed \[1011\]"):
            device.recv(None)
        with pytest.raises(ConfigError, match="pass 'legacy' or 'current'"):
            device.wait_reconnected()
        assert (device.is_lost, device.lost_reason, operator.names) == (False, None, ["cvd-1"])


def test_stalled_device_reconnects_on_resume(operator: Operator) -> None:
    with FakeDevice(operator.url, profile="legacy", backoff=0) as device:
        connection = operator.next()
        device.stall()
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.socket.shutdown(socket.SHUT_RD)
        connection.socket.close()
        with pytest.raises(PeerClosedError):
            while True:
                device.send(1, 1)
        with pytest.raises(WaitTimeoutError):
            device.wait_reconnected(1, timeout=0.05)
        device.resume()
        device.wait_reconnected(1, PATIENCE)


def test_device_reconnects_after_server_restart() -> None:
    """The server may listen on another port after a restart: the fake device reads its URL again."""
    with SignalingServer() as server:
        for profile in PROFILES:
            with FakeDevice(server, profile=profile, backoff=BACKOFF) as device:
                server.stop()
                server.start()
                device.wait_reconnected(1, PATIENCE)
                with FakeClient(server) as client:
                    client.send(1)
                    assert device.recv().payload == 1


def test_reused_client_id_gets_old_peer() -> None:
    with SignalingServer() as server, FakeDevice(server, profile="legacy", backoff=BACKOFF) as device:
        with FakeClient(server) as client:
            client.send("first")
            client.send("second")
            assert [device.recv().is_new_peer for _ in range(2)] == [True, False]
            server.stop()
            server.start()
            device.wait_reconnected(1, PATIENCE)
        assert (device.clients, device.collisions) == ([1], [])
        with FakeClient(server) as client:
            client.send("first")
            client.send("second")
            assert [(heard.client_id, heard.is_new_peer) for heard in (device.recv(), device.recv())] == [
                (1, False)
            ] * 2
            assert (device.clients, device.collisions) == ([1], [1])
        assert device.recv(message_type="client_disconnected").client_id == 1
        assert device.clients == []
        with FakeClient(server) as client:
            client.send("first")
            heard = device.recv()
            assert (heard.client_id, heard.is_new_peer, device.collisions) == (2, True, [1])
    with FakeDevice(SignalingServer().start(), profile="legacy") as fresh:
        assert fresh.clients == []


def test_device_keeps_clients_that_left_while_disconnected() -> None:
    with SignalingServer() as server, FakeDevice(server, profile="current", backoff=BACKOFF) as device:
        with FakeClient(server) as client:
            client.send(1)
            device.recv()
            server.disconnect_device("cvd-1")
            device.wait_reconnected(1, PATIENCE)
        assert device.clients == [1]
        device.send("to an earlier client", 1)
        assert device.recv(message_type="client_disconnected").client_id == 1
        assert device.clients == []


def test_replay_continues_after_reconnect() -> None:
    said = [
        Line("client", 1, {"type": "a"}),
        Line("device", 1, 1),
        Line("client", 1, {"type": "a"}),
        Line("device", 1, 2),
    ]
    cassette = Cassette("cvd-1", None, tuple(said))
    with SignalingServer() as server:
        with ReplayDevice(server, cassette, profile="current", backoff=BACKOFF) as device:
            for answer in (1, 2):
                with FakeClient(server) as client:
                    client.send({"type": "a"})
                    assert client.recv().payload == answer
                    server.stop()
                    server.start()
                    device.wait_reconnected(answer, PATIENCE)
            assert (device.collisions, device.unmatched) == ([1], [])
        with device, FakeClient(server) as client:
            client.send({"type": "a"})
            assert client.recv().payload == 1


def test_async_device_reconnects_and_is_lost(operator: Operator) -> None:
    async def main() -> None:
        async with AsyncFakeDevice(operator.url, profile="legacy", backoff=LONG_BACKOFF) as device:
            connection = await asyncio.to_thread(operator.next)
            await asyncio.to_thread(connection.close)
            await device.wait_reconnected(1, PATIENCE)
            connection = await asyncio.to_thread(operator.next)
            await asyncio.to_thread(send_error_and_close, connection, "Internal error", 1011)
            with pytest.raises(DeviceLostError):
                async for _ in device:
                    pass
            assert device.is_lost

    asyncio.run(main())
