"""Plain HTTP and invalid upgrades: each gets a response, and no connection is dropped."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from cuttlefish_signaling import IceServer, Limits, SignalingServer

import raw
from http_requests import request
from peers import PATIENCE, Peers, peers_of
from raw import UPGRADE, frame, request_head


def test_device_listing_and_infra_config() -> None:
    with SignalingServer(ice_servers=[IceServer("stun:s.lab")]) as server, peers_of(server) as peers:
        assert request(server, "GET", "/devices")[::2] == (200, b"[]")
        peers.device('b"\u00e9')
        peers.device("a")
        listing = request(server, "GET", "/devices?x=y")
        assert (listing.status, listing.headers["content-type"]) == (200, "application/json")
        assert listing.json == [
            {"device_id": "a", "group_name": "", "adb_port": 0},
            {"device_id": 'b"\u00e9', "group_name": "", "adb_port": 0},
        ]
        assert request(server, "GET", "/devices?format=ids").json == ["a", 'b"\u00e9']
        assert request(server, "GET", "/devices?groupId=other").json == []
        assert request(server, "GET", "/devices?groupId=&owner=").json == listing.json
        assert request(server, "GET", "/devices?owner=me").json == []
        assert request(server, "GET", "/infra_config").json == {
            "message_type": "config",
            "ice_servers": [{"urls": ["stun:s.lab"]}],
        }
        assert request(server, "GET", "/healthz").json == {"status": "ok"}


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
    response = request(server, method, path, headers=headers)
    assert response.status == status
    assert set(response.json) == {"error"}
    if status == 400:
        assert response.headers["sec-websocket-version"] == "13"
    if status == 426:
        assert response.headers["upgrade"] == "websocket"


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
    response = request(server, method, path)
    assert response.status == status
    assert isinstance(response.json["error"], str)


def test_response_survives_unread_request_head(server: SignalingServer) -> None:
    """Twenty times, and with the response read late: a reset would discard it."""
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
            connection.sendall(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
            connection.sendall(b"y" * 10_000)
            assert connection.recv(12).startswith(b"HTTP/1.1 4")


def raw_response(server: SignalingServer, sent: bytes) -> bytes:
    """The response, after the end of the request."""
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"invalid\r\n\r\n", b"400"),
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
        (request_head("/register_device", UPGRADE, version="1.0"), b"400"),
    ],
)
def test_invalid_request_heads_are_refused(server: SignalingServer, request_: bytes, status: bytes) -> None:
    answer = raw_response(server, request_)
    assert answer.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status)), answer[:200]


def test_response_survives_unread_request_data(server: SignalingServer) -> None:
    """Closing a socket with unread data resets it, which discards the response."""
    for _ in range(3):
        assert raw_response(server, b"invalid\r\n\r\n" + b"y" * 8_000_000).startswith(b"HTTP/1.1 400")


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
    register = frame(b'{"message_type":"register","device_id":"eager"}')
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as connection:
        connection.sendall(request_head("/register_device", UPGRADE) + register)
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
        with suppress(ConnectionClosed):  # The close may come before the last, empty fragment is sent.
            device.socket.send("x" * 400 for _ in range(3))
        assert device.wait_closed() == 1009


def test_raw_socket_connects_as_client(server: SignalingServer, peers: Peers) -> None:
    """RFC 6455 by hand, with the header fields in another form: other libraries send them so."""
    peers.device("cvd-1", 7)
    headers = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Host": "127.0.0.1"}
    with raw.connect(server.port, "cvd-1", "/connect_client?x=y", headers=headers) as client:
        assert client.receive() == {"message_type": "config", "ice_servers": []}
        assert client.receive() == {"message_type": "device_info", "device_info": 7}
