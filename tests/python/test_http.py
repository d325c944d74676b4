"""Plain HTTP, and upgrades that are none: a proper answer each time, never a dropped connection."""

from __future__ import annotations

import http.client
import json
import socket
import threading

import pytest
from websockets.sync.client import connect
from websockets.typing import Origin

from cuttlefish_signaling import IceServer, Limits, SignalingServer

from peers import PATIENCE, Peers, peers_of

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

UPGRADE_OF_OLD = b"GET /register_device HTTP/1.0\r\n%s\r\n" % b"".join(
    f"{name}: {value}\r\n".encode() for name, value in UPGRADE.items()
)


def ask(
    server: SignalingServer, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, object, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        return answer.status, json.loads(body) if body else None, answer.headers
    finally:
        connection.close()


def test_device_listing_and_infra_config() -> None:
    with SignalingServer(ice_servers=[IceServer("stun:s.lab")]) as server, peers_of(server) as peers:
        assert ask(server, "GET", "/devices")[:2] == (200, [])
        peers.device('b"\u00e9')
        peers.device("a")
        status, devices, headers = ask(server, "GET", "/devices?x=y")
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert devices == [
            {"device_id": "a", "group_name": "", "adb_port": 0},
            {"device_id": 'b"\u00e9', "group_name": "", "adb_port": 0},
        ]
        assert ask(server, "GET", "/devices?format=ids")[1] == ["a", 'b"\u00e9']
        assert ask(server, "GET", "/devices?groupId=other")[1] == []
        assert ask(server, "GET", "/devices?groupId=&owner=")[1] == devices
        assert ask(server, "GET", "/devices?owner=me")[1] == []
        assert ask(server, "GET", "/infra_config")[1] == {
            "message_type": "config",
            "ice_servers": [{"urls": ["stun:s.lab"]}],
        }
        assert ask(server, "GET", "/healthz")[1] == {"status": "ok"}


@pytest.mark.parametrize("path", ["/register_device", "/connect_client"])
@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {}, 426),
        ("GET", {"Connection": "Upgrade"}, 426),
        ("GET", {**UPGRADE, "Upgrade": "h2c"}, 400),
        ("GET", {**UPGRADE, "Connection": "keep-alive"}, 400),
        ("GET", {**UPGRADE, "Sec-WebSocket-Version": "8"}, 400),
        ("GET", {**UPGRADE, "Sec-WebSocket-Key": "short"}, 400),
        ("GET", {key: value for key, value in UPGRADE.items() if key != "Sec-WebSocket-Key"}, 400),
        ("POST", {}, 405),
        ("POST", UPGRADE, 405),
    ],
)
def test_invalid_upgrades_are_refused(
    server: SignalingServer, path: str, method: str, headers: dict[str, str], status: int
) -> None:
    told, body, answered = ask(server, method, path, headers)
    assert told == status
    assert isinstance(body, dict)
    assert set(body) == {"error"}
    if status == 400:
        assert answered["sec-websocket-version"] == "13"
    if status == 426:
        assert answered["upgrade"] == "websocket"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/register_device/", 404),
        ("GET", "/%ff%00", 404),
        ("GET", "/nowhere?x=y", 404),
        ("POST", "/devices", 405),
        ("DELETE", "/infra_config", 405),
        ("PUT", "/nowhere", 404),
    ],
)
def test_unknown_paths_and_methods_are_refused(server: SignalingServer, method: str, path: str, status: int) -> None:
    told, body, _ = ask(server, method, path)
    assert told == status
    assert isinstance(body, dict)
    assert isinstance(body["error"], str)


def test_response_survives_unread_request_head(server: SignalingServer) -> None:
    """Many times, and with the answer read late: a reset would take it back."""
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.sendall(b"y" * 10_000)
            assert connection.recv(12).startswith(b"HTTP/1.1 4")


def raw_response(server: SignalingServer, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        return answer


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"rubbish\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(64)) + b"\r\n", b"431"),
        (
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            + b"".join(b"X-%d: y\r\n" % n for n in range(62))
            + b"\r\n",
            b"200",
        ),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"y" * 20000 + b"\r\n\r\n", b"431"),
        (b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"4"),
        (b"GET /devices HTTP/1.0\r\n\r\n", b"200"),
        (UPGRADE_OF_OLD, b"400"),
    ],
)
def test_invalid_request_heads_are_refused(server: SignalingServer, request_: bytes, status: bytes) -> None:
    answer = raw_response(server, request_)
    assert answer.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status)), answer[:200]


def test_response_survives_unread_request_data(server: SignalingServer) -> None:
    """Closing a socket with unread input resets it, and the answer on the way with it."""
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(b"rubbish\r\n\r\n" + b"y" * 8_000_000)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("sent", [b"GET /register_dev", b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_request_head_timeout_closes_connection(sent: bytes) -> None:
    limits = Limits(request_head_timeout=0.2)
    with SignalingServer(limits=limits) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(sent)
            while connection.recv(65536):
                pass


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["webrtc-operator"], "webrtc-operator"),
        (["a", "webrtc-operator", "b"], "webrtc-operator"),
        (["a", "b"], None),
        (None, None),
    ],
)
def test_subprotocol_negotiation(server: SignalingServer, offered: list[str] | None, chosen: str | None) -> None:
    with connect(server.device_url, subprotocols=offered) as device:  # type: ignore[arg-type]
        assert device.subprotocol == chosen


def test_compression_is_not_negotiated(server: SignalingServer) -> None:
    origin = Origin(f"http://127.0.0.1:{server.port}")
    with connect(server.device_url, origin=origin, compression="deflate") as device:
        assert device.protocol.extensions == []


def test_query_string_is_not_part_of_path(server: SignalingServer, peers: Peers) -> None:
    device = peers.connect(f"{server.device_url}?device=/connect_client&x")
    device.send({"message_type": "register", "device_id": "a"})
    assert device.receive()["message_type"] == "config"


def test_frame_sent_with_upgrade_is_read(server: SignalingServer) -> None:
    text = b'{"message_type":"register","device_id":"eager"}'
    head = (
        "GET /register_device HTTP/1.1\r\nHost: localhost\r\n"
        + "".join(f"{k}: {v}\r\n" for k, v in UPGRADE.items())
        + "\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(head.encode() + bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        server.wait_for_device("eager", timeout=PATIENCE)


def test_fragments_are_joined_and_pings_answered_between(server: SignalingServer, peers: Peers) -> None:
    device = peers.connect(server.device_url)
    pong = threading.Event()

    def pieces() -> object:
        yield '{"message_type":"reg'
        assert device.socket.ping(ack_on_close=False).wait(PATIENCE)
        pong.set()
        yield 'ister","device_id":"\u00e9"}'

    device.socket.send(pieces())  # type: ignore[arg-type]
    assert pong.is_set()
    assert device.receive()["message_type"] == "config"
    assert server.devices()[0].device_id == "\u00e9"


def test_fragments_count_towards_max_message_size() -> None:
    limits = Limits(max_message_size=1000)
    with SignalingServer(limits=limits) as server, peers_of(server) as peers:
        device = peers.connect(server.device_url)
        device.socket.send("x" * 400 for _ in range(3))
        assert device.wait_closed() == 1009
