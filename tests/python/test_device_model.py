"""The device on libwebsockets behaves as legacy devices were observed to, on servers that follow a script."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from device_program import LOST, RECONNECT_MS, Device, build
from peers import PATIENCE

MAX_FRAME = 65_536
AN_HOUR = 3_600_000
CONFIG = '{"message_type":"config","ice_servers":[]}'


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    build()


@contextmanager
def scripted(script: Callable[[ServerConnection], None]) -> Iterator[str]:
    """The URL of a server that runs this for each device after `register`, and then waits for the close."""

    def handler(connection: ServerConnection) -> None:
        try:
            register = json.loads(connection.recv(timeout=PATIENCE))
            assert register["message_type"] == "register"
            script(connection)
            for _ in connection:
                pass
        except ConnectionClosed:
            pass

    with serve(handler, "127.0.0.1", 0, subprotocols=["webrtc-operator"], compression=None) as server:  # type: ignore[list-item]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/register_device?zone=a"
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def client_msg(length: int) -> str:
    """A message of this many bytes."""
    text = '{"message_type":"client_msg","client_id":1,"payload":""}'
    return text[:-2] + "x" * (length - len(text)) + text[-2:]


def test_handshake_offers_subprotocol_and_server_origin() -> None:
    heads: list[tuple[str, str | None, str | None]] = []

    def script(connection: ServerConnection) -> None:
        assert connection.request is not None
        headers = connection.request.headers
        heads.append((connection.request.path, headers.get("Sec-WebSocket-Protocol"), headers.get("Origin")))
        connection.send(CONFIG)

    with scripted(script) as url, Device(url) as device:
        device.until("config")
    assert heads == [("/register_device?zone=a", "webrtc-operator", "http://127.0.0.1")]


def test_error_then_close_loses_device() -> None:
    def script(connection: ServerConnection) -> None:
        connection.send('{"error":"No \\"room\\""}')
        connection.close(1008, "No room")

    with scripted(script) as url, Device(url, reconnect_ms=AN_HOUR) as device:
        assert [device.event() for _ in range(5)] == [
            "connected",
            'error "No \\"room\\""',
            f"reconnect in {AN_HOUR}",
            "closed 1008 No room",
            "lost",
        ]
        assert device.ends() == LOST


def test_error_alone_opens_second_connection() -> None:
    connections: list[ServerConnection] = []

    def script(connection: ServerConnection) -> None:
        connections.append(connection)
        if len(connections) == 1:
            connection.send('{"error":"No"}')
        else:
            connections[0].send(client_msg(100))

    with scripted(script) as url, Device(url) as device:
        device.until("connected", "error", "reconnect", "connected", "message 1")
        assert not [event for event in device.seen if event.startswith("closed")]


def test_close_alone_reconnects() -> None:
    codes = [1000, 1001, 1003, 1007, 1008, 1009, 1011, 1013]
    left = list(codes)

    def script(connection: ServerConnection) -> None:
        connection.send(CONFIG)
        if left:
            code = left.pop(0)
            connection.close(code, f"close {code}")

    with scripted(script) as url, Device(url) as device:
        for code in codes:
            assert device.event() == "connected"
            assert device.event() == f"config {CONFIG}"
            # libwebsockets 4.1 treats 1013 as an illegal code, and reports 1002.
            assert device.event() in (f"closed {code} close {code}", f"closed 1002 close {code}")
            assert device.event() == f"reconnect in {RECONNECT_MS}"
        device.until("config")


@pytest.mark.parametrize("text", ['{"message_type":"greeting"}', "{}", "[]", '{"message_type":"client_msg"}'])
def test_unknown_message_type_breaks_connection(text: str) -> None:
    with scripted(lambda connection: connection.send(text)) as url, Device(url) as device:
        device.until(f"broken {text}", f"reconnect in {RECONNECT_MS}", "connected")


def test_client_messages_are_answered_and_peers_removed() -> None:
    def script(connection: ServerConnection) -> None:
        for payload in ('{"a":[1,"\\"}"]}', "null"):
            connection.send(f'{{"message_type":"client_msg","client_id":2147483647,"payload":{payload}}}')
            echo = f'{{"message_type":"forward","client_id":2147483647,"payload":{{"type":"answer","echo":{payload}}}}}'
            assert connection.recv(timeout=PATIENCE) == echo
            connection.send('{"message_type":"client_disconnected","client_id":2147483647}')
        connection.send(CONFIG)

    with scripted(script) as url, Device(url) as device:
        device.until("config")
        assert device.seen == [
            "connected",
            "peer 2147483647 new",
            'message 2147483647 {"a":[1,"\\"}"]}',
            "gone 2147483647",
            "peer 2147483647 new",
            "message 2147483647 null",
            "gone 2147483647",
            f"config {CONFIG}",
        ]


def test_fragmented_binary_and_oversized_messages_are_dropped() -> None:
    def script(connection: ServerConnection) -> None:
        connection.send([CONFIG[:10], CONFIG[10:]])
        connection.send(CONFIG.encode())
        connection.send(client_msg(MAX_FRAME + 1))
        connection.send(client_msg(MAX_FRAME))

    with scripted(script) as url, Device(url) as device:
        device.until("message")
        dropped = [int(event.split()[1]) for event in device.seen if event.startswith("dropped")]
        assert [size for size in dropped if size] == [10, len(CONFIG) - 10, len(CONFIG), MAX_FRAME, 1]
        assert len([event for event in device.seen if event.startswith("message")]) == 1


def test_failures_double_delay_up_to_60_times() -> None:
    with socket.socket() as closed_port:
        closed_port.bind(("127.0.0.1", 0))
        with Device(f"ws://127.0.0.1:{closed_port.getsockname()[1]}/", reconnect_ms=1) as device:
            device.until("failed", *(f"reconnect in {delay}" for delay in (2, 4, 8, 16, 32, 60, 60)))
