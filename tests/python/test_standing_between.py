"""A proxy passes bytes, requests and ends on unchanged (docs/standing-between.md)."""

from __future__ import annotations

import json
import os
import socket
import struct
import urllib.error
import urllib.request
from queue import SimpleQueue
from typing import Any

import pytest
from scripted_upstream import accept_upgrade, field, listening, read_head, receive
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from cuttlefish_signaling import AuthorizeContext, Grant, Limits, Refused, SignalingServer

from peers import OPERATOR_SUBPROTOCOL, PATIENCE, wait_until
from raw import CLOSE, PING, PONG, UPGRADE, Raw, frame, request_head


def plain(content: bytes, first: int = 0x81) -> bytes:
    """A frame of a server."""
    head = (
        struct.pack("!BB", first, len(content)) if len(content) < 126 else struct.pack("!BBH", first, 126, len(content))
    )
    return head + content


def masked(content: bytes, key: bytes, first: int = 0x81) -> bytes:
    """A frame of a client."""
    return bytes([first, 0x80 | len(content)]) + key + bytes(a ^ key[i % 4] for i, a in enumerate(content))


def test_frames_pass_byte_for_byte_both_ways() -> None:
    key = b"\x01\x80\xfe\x37"
    pieces = [
        masked(b'{"message_type" : "x"}', key),
        masked(b"fragment ", key, 0x01) + masked(b"of a text", key, 0x80),
        masked(bytes(range(100)), key, 0x82),
        masked(b"no JSON", key),
        masked(b"\xff no UTF-8", key),
        plain(b"not masked"),
        masked(b"an unknown opcode", key, 0x83),
        masked(b"an extension", key, 0xC1),
    ]
    down = [
        plain(b'{"message_type" : "config", "more": 1.10}'),
        plain(b"fragment ", 0x01) + plain(b"of a text", 0x80),
        plain(bytes(range(256)), 0x82),
        plain(b"x" * 300),
        plain(b"a bad frame", 0xF5),
    ]
    received: SimpleQueue[bytes] = SimpleQueue()

    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        for piece in pieces:
            received.put(receive(connection, len(piece)))
        connection.sendall(b"".join(down))
        connection.recv(1)

    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}", journal=True) as proxy:
        with Raw(proxy.port, "/connect_client") as peer:
            for piece in pieces:
                peer.socket.sendall(piece)
                assert received.get(timeout=PATIENCE) == piece
            expected = b"".join(down)
            assert peer._reader.read(len(expected)) == expected


@pytest.mark.parametrize("size", [200_000, 3_000_000])
def test_long_messages_pass_although_the_journal_does_not_read_them(size: int) -> None:
    limits = Limits(max_message_size=4096, journal_bytes=1 << 20)
    behind = SignalingServer(limits=Limits(max_message_size=8 << 20, outbox_bytes=8 << 20))
    with behind, SignalingServer(upstream=behind.url, limits=limits, journal=True) as proxy:
        with connect(proxy.device_url, max_size=None) as device, connect(proxy.client_url, max_size=None) as client:
            device.send(json.dumps({"message_type": "register", "device_id": "d"}))
            device.recv(PATIENCE)
            client.send(json.dumps({"message_type": "connect", "device_id": "d"}))
            client.recv(PATIENCE), client.recv(PATIENCE)
            client.send('{"message_type":"forward","payload":1}')
            device.recv(PATIENCE)
            text = "x" * size
            device.send(json.dumps({"message_type": "forward", "client_id": 1, "payload": text}))
            assert json.loads(client.recv(PATIENCE))["payload"] == text
            device.send('{"message_type":"forward","client_id":1,"payload":"short"}')
            assert json.loads(client.recv(PATIENCE))["payload"] == "short"
        assert proxy.stats().balances


def test_pings_and_pongs_go_from_end_to_end() -> None:
    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        assert receive(connection, 10) == masked(b"peer", b"\0\0\0\0", PING)
        connection.sendall(plain(b"other", PONG) + plain(b"up", PING))
        assert receive(connection, 8) == masked(b"up", b"\0\0\0\0", PONG)
        connection.sendall(plain(b"got it"))
        connection.recv(1)

    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}") as proxy:
        with Raw(proxy.port, "/register_device") as peer:
            peer.socket.sendall(frame(b"peer", PING))
            assert peer.receive_frame() == (PONG, b"other")
            assert peer.receive_frame() == (PING, b"up")
            peer.socket.sendall(frame(b"up", PONG))
            assert peer.receive_frame() == (0x81, b"got it")


@pytest.mark.parametrize("payload", [b"", struct.pack("!H", 4711) + "möglich".encode(), struct.pack("!H", 1000)])
def test_close_frames_go_both_ways(payload: bytes) -> None:
    ends: SimpleQueue[bytes] = SimpleQueue()

    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        connection.sendall(plain(payload, CLOSE))
        ends.put(receive(connection, len(masked(payload, b"\0\0\0\0", CLOSE))))

    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}") as proxy:
        with Raw(proxy.port, "/connect_client") as peer:
            assert peer.receive_frame() == (CLOSE, payload)
            peer.socket.sendall(frame(payload, CLOSE))
            assert ends.get(timeout=PATIENCE) == masked(payload, b"\0\0\0\0", CLOSE)
            with pytest.raises(EOFError):
                peer.receive_frame()
        wait_until(lambda: proxy.stats().connections == 0)


@pytest.mark.parametrize("first", ["peer", "upstream"])
@pytest.mark.parametrize("is_reset", [False, True])
def test_connections_that_end_without_a_close_frame_end_on_the_other_side(first: str, is_reset: bool) -> None:
    seen: SimpleQueue[str] = SimpleQueue()

    def end(connection: socket.socket) -> None:
        if is_reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        connection.sendall(plain(b"ready"))
        if first == "upstream":
            return end(connection)
        try:
            seen.put("closed" if connection.recv(1) == b"" else "sent")
        except ConnectionResetError:
            seen.put("reset")

    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}") as proxy:
        peer = Raw(proxy.port, "/connect_client")
        assert peer.receive_frame() == (0x81, b"ready")
        if first == "peer":
            peer._reader.close()
            end(peer.socket)
            assert seen.get(timeout=PATIENCE) == ("reset" if is_reset else "closed")
        else:
            with pytest.raises((EOFError, ConnectionResetError)):
                peer.receive_frame()
            peer.__exit__()
        wait_until(lambda: proxy.stats().connections == 0)


def test_upgrade_reaches_the_server_with_its_headers() -> None:
    heads: SimpleQueue[bytes] = SimpleQueue()

    def upstream(connection: socket.socket) -> None:
        heads.put(accept_upgrade(connection, b"X-Answer: 1", b"Set-Cookie: a=b", b"Sec-WebSocket-Protocol: of-mine"))
        connection.recv(1)

    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}/below/") as proxy:
        given = {
            "Authorization": "Bearer secret",
            "Cookie": "c=1",
            "Sec-WebSocket-Protocol": "of-mine, other",
            "Sec-WebSocket-Extensions": "permessage-deflate",
            "X-Own": "kept",
            "X-Forwarded-For": "1.2.3.4",
            "Origin": f"http://localhost:{proxy.port}",
            "Host": f"localhost:{proxy.port}",
        }
        with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE) as peer:
            peer.sendall(request_head("/devices/a%2Fb/connect?x=%20y", {**UPGRADE, **given}))
            answer, head = read_head(peer), heads.get(timeout=PATIENCE)
        assert head.startswith(b"GET /below/devices/a%2Fb/connect?x=%20y HTTP/1.1\r\n")
        kept = ("Authorization", "Cookie", "Sec-WebSocket-Protocol", "X-Own")
        assert [field(head, name) for name in kept] == [given[name].encode() for name in kept]
        assert field(head, "Host") == f"127.0.0.1:{port}".encode()
        assert field(head, "Origin") == f"http://127.0.0.1:{port}".encode()
        assert field(head, "X-Forwarded-For") == b"127.0.0.1"
        assert field(head, "Sec-WebSocket-Extensions") is None
        assert (field(head, "Via") or b"").startswith(b"1.1 cuttlefish-signaling-proxy-")
        assert b"\r\nSec-WebSocket-Key: " in head and b"\r\nX-Own: " in head
        assert answer.startswith(b"HTTP/1.1 101 ") and b"\r\nX-Answer: 1\r\n" in answer
        names = ("X-Answer", "Set-Cookie", "Sec-WebSocket-Protocol")
        assert [field(answer, name) for name in names] == [b"1", b"a=b", b"of-mine"]


def test_subprotocol_and_role_decide_as_on_the_server() -> None:
    with SignalingServer() as behind, SignalingServer(upstream=behind.url) as proxy:
        with connect(proxy.device_url, subprotocols=OPERATOR_SUBPROTOCOL) as device:
            assert device.subprotocol == "webrtc-operator"
        with connect(proxy.device_url) as device:
            device.send("no JSON")
            assert json.loads(device.recv(PATIENCE)) == {"error": "Received Invalid JSON"}
            with pytest.raises(ConnectionClosed) as closed:
                device.recv(PATIENCE)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1007


def test_refused_upgrade_is_passed_on_with_its_status_and_body() -> None:
    def refuse(_: object) -> None:
        raise Refused("not today", status=401)

    with SignalingServer(authorize=refuse) as behind, SignalingServer(upstream=behind.url, journal=True) as proxy:
        direct, through = (refusal(server.client_url) for server in (behind, proxy))
        assert through == direct
        assert through[:2] == (401, b'{"error":"not today"}')
        assert (proxy.stats().upstream_failures, proxy.stats().connections) == (0, 0)


def refusal(url: str) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Status, body and headers of an upgrade that is refused, without its date."""
    with pytest.raises(InvalidStatus) as refused:
        connect(url)
    response = refused.value.response
    headers = sorted((name.lower(), value) for name, value in response.headers.raw_items() if name.lower() != "date")
    return response.status_code, bytes(response.body or b""), headers


def test_plain_requests_pass_with_body_query_and_answer() -> None:
    heads: SimpleQueue[bytes] = SimpleQueue()
    answer = b"HTTP/1.1 418 Short And Stout\r\nContent-Length: 3\r\nX-Answer: 1\r\nLocation: http://127.0.0.1:%d/there\r\n\r\ntea"

    def upstream(connection: socket.socket) -> None:
        head = read_head(connection)
        heads.put(head + receive(connection, int(field(head, "Content-Length") or 0)))
        connection.sendall(answer % port)

    with listening(upstream) as port, SignalingServer(upstream=f"http://127.0.0.1:{port}") as proxy:
        request = urllib.request.Request(f"{proxy.url}/any/%41?q=1&q=2", data=b'{"a":1}', method="PUT")
        with pytest.raises(urllib.error.HTTPError) as answered:
            urllib.request.urlopen(request, timeout=PATIENCE)
        got = heads.get(timeout=PATIENCE)
        assert got.startswith(b"PUT /any/%41?q=1&q=2 HTTP/1.1\r\n") and got.endswith(b'\r\n\r\n{"a":1}')
        assert (answered.value.code, answered.value.read()) == (418, b"tea")
        assert {"X-Answer": "1", "Location": "/there"}.items() <= dict(answered.value.headers).items()
        assert "Cache-Control" not in answered.value.headers


def test_polled_clients_and_lists_reach_the_server() -> None:
    with SignalingServer() as behind, SignalingServer(upstream=behind.url) as proxy:
        with connect(proxy.device_url) as device:
            device.send('{"message_type":"register","device_id":"d","device_info":{"a":1}}')
            device.recv(PATIENCE)
            assert get(f"{proxy.url}/devices?format=ids") == ["d"]
            opened = get(f"{proxy.url}/polled_connections", {"device_id": "d"})
            forward = {"payload": {"type": "request-offer"}}
            get(f"{proxy.url}/polled_connections/{opened['connection_id']}/:forward", forward)
            assert json.loads(device.recv(PATIENCE))["payload"] == forward["payload"]


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())


def test_own_endpoints_are_below_the_prefix_and_all_others_reach_the_server() -> None:
    with SignalingServer() as behind, SignalingServer(upstream=behind.url, dashboard=True) as proxy:
        assert get(f"{proxy.url}/_proxy/devices") == []
        with urllib.request.urlopen(f"{proxy.url}/_proxy", timeout=PATIENCE) as page:
            assert page.url == f"{proxy.url}/_proxy/" and b"<!doctype html>" in page.read()
        assert get(f"{proxy.url}/_proxy/healthz") == {"status": "ok"}
        # The viewer of the page connects below the prefix, and reaches the server.
        with connect(proxy.device_url.replace("/register", "/_proxy/register")) as device:
            device.send('{"message_type":"register","device_id":"a/b"}')
            device.recv(PATIENCE)
            assert [found.device_id for found in behind.devices()] == ["a/b"]
            with connect(proxy.url.replace("http", "ws") + "/_proxy/devices/a%2Fb/connect") as client:
                assert json.loads(client.recv(PATIENCE)) == {"device_info": None}
            assert get(f"{proxy.url}/_proxy/infra_config") == get(f"{behind.url}/infra_config")
        assert "config" not in json.dumps(get(f"{proxy.url}/_proxy/devices"))


def test_grant_of_single_devices_is_refused_and_another_one_admits() -> None:
    grants = {"some": Grant(devices=["cvd-*"]), "all": Grant(identity="lab")}

    def authorize(context: AuthorizeContext) -> Grant:
        return grants[context.query["grant"]]

    with SignalingServer() as behind, SignalingServer(upstream=behind.url, authorize=authorize) as proxy:
        status, body, _ = refusal(f"{proxy.client_url}?grant=some")
        assert (status, b"cannot grant single devices" in body) == (403, True)
        with connect(f"{proxy.client_url}?grant=all") as client:
            client.send('{"message_type":"connect","device_id":"none"}')
            assert json.loads(client.recv(PATIENCE))["message_type"] == "config"


def test_side_that_does_not_read_is_not_read_on_the_other() -> None:
    sent: SimpleQueue[int] = SimpleQueue()

    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        connection.setblocking(False)
        piece, total = plain(b"x" * 60_000), 0
        try:
            while total < 200 << 20:
                total += connection.send(piece)
        except BlockingIOError:
            # Buffers of the kernel can move a little more on. They are full when a second goes by without room.
            connection.settimeout(1)
            try:
                while total < 200 << 20:
                    total += connection.send(piece)
            except TimeoutError:
                pass
        sent.put(total)

    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}") as proxy:
        with Raw(proxy.port, "/connect_client"):
            # 64 KiB wait in the proxy; the rest is in the buffers of two connections.
            assert sent.get(timeout=PATIENCE) < 40 << 20
        wait_until(lambda: proxy.stats().connections == 0)


def test_slow_consumer_ends_after_write_timeout() -> None:
    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        piece = plain(b"x" * 60_000)
        while True:
            connection.sendall(piece)

    limits = Limits(write_timeout=0.2)
    with listening(upstream) as port, SignalingServer(upstream=f"ws://127.0.0.1:{port}", limits=limits) as proxy:
        with Raw(proxy.port, "/connect_client"):
            wait_until(lambda: proxy.stats().slow_consumers == 1)
            wait_until(lambda: proxy.stats().connections == 0)


def test_stop_closes_both_sides_with_1001() -> None:
    closed: SimpleQueue[bytes] = SimpleQueue()

    def upstream(connection: socket.socket) -> None:
        accept_upgrade(connection)
        connection.sendall(plain(b"ready"))
        head = receive(connection, 6)
        closed.put(bytes(a ^ head[2 + i % 4] for i, a in enumerate(receive(connection, head[1] & 0x7F))))

    with listening(upstream) as port:
        proxy = SignalingServer(upstream=f"ws://127.0.0.1:{port}").start()
        with connect(proxy.client_url) as client:
            assert client.recv(PATIENCE) == "ready"
            proxy.stop()
            with pytest.raises(ConnectionClosed) as end:
                client.recv(PATIENCE)
            assert end.value.rcvd is not None
            assert (end.value.rcvd.code, end.value.rcvd.reason) == (1001, "server stopping")
            assert closed.get(timeout=PATIENCE) == struct.pack("!H", 1001) + b"server stopping"


def test_descriptors_and_books_are_as_before_after_many_connections() -> None:
    with SignalingServer() as behind, SignalingServer(upstream=behind.url, journal=True) as proxy:

        def round_trip(number: int) -> None:
            with connect(proxy.device_url) as device, connect(proxy.client_url) as client:
                device.send(json.dumps({"message_type": "register", "device_id": f"d{number}"}))
                device.recv(PATIENCE)
                client.send(json.dumps({"message_type": "connect", "device_id": f"d{number}"}))
                client.recv(PATIENCE), client.recv(PATIENCE)
                client.send('{"message_type":"forward","payload":1}')
                device.recv(PATIENCE)
                get(f"{proxy.url}/devices")
            wait_until(lambda: proxy.stats().connections == behind.stats().connections == 0)

        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        round_trip(0)
        before = descriptors()
        for number in range(1, 30):
            round_trip(number)
        # The connections of requests end a little later than their answers.
        wait_until(lambda: descriptors() <= before)
        stats = proxy.stats()
        assert stats.balances and stats.delivered == 30 and (stats.devices, stats.clients) == (0, 0)
