"""Today's Cuttlefish and the reference's polling: every kind of device with every kind of client."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import BindError, ConfigError, Grant, Limits, Refused, SignalingServer

from peers import PATIENCE, Peers, SeqpacketPeer, WebSocketPeer, peers_of

DEVICE_ID = "cvd/1 \u00e9"
INFO = {"displays": [1.0]}
QUOTED = urllib.parse.quote(DEVICE_ID, safe="")


def ask(server: SignalingServer, path: str, body: Any = None, *, raw: bytes | None = None) -> tuple[int, Any]:
    """Status and body of a request: POST where it has a body."""
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server.url + path, data), timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


class BareClient:
    """`WS /devices/{id}/connect`."""

    def __init__(self, peers: Peers, device_id: str) -> None:
        self.device_id = urllib.parse.quote(device_id, safe="")
        self.socket = peers.connect(f"{peers.server.url.replace('http', 'ws', 1)}/devices/{self.device_id}/connect")
        assert self.socket.receive() == {"device_info": INFO}

    def send(self, payload: Any) -> None:
        self.socket.send(payload)

    def receive(self) -> Any:
        heard = self.socket.receive()
        return heard.get("payload", heard)

    def close(self) -> None:
        self.socket.close()


class PolledClient:
    """`/polled_connections`, long or short."""

    def __init__(self, peers: Peers, device_id: str, wait: float = 10) -> None:
        self.server, self.wait, self.start = peers.server, wait, 0
        status, answer = ask(self.server, "/polled_connections", {"device_id": device_id})
        assert (status, answer["device_info"], set(answer)) == (200, INFO, {"connection_id", "device_info"})
        self.path = f"/polled_connections/{answer['connection_id']}"

    def send(self, payload: Any) -> None:
        assert ask(self.server, f"{self.path}/:forward", {"payload": payload}) == (200, "ok")

    def receive(self) -> Any:
        while True:
            status, found = ask(self.server, f"{self.path}/messages?start={self.start}&count=1&wait={self.wait}")
            if status != 200:
                return found
            if found:
                (message,) = found
                self.start += 1
                assert message["message_type"] == "device_msg"
                return message["payload"]

    def close(self) -> None:
        self.server.clock.advance(60)


class ReferenceClient:
    """`/connect`, `/forward`, `/poll_messages`."""

    def __init__(self, peers: Peers, device_id: str) -> None:
        self.server = peers.server
        status, answer = ask(self.server, "/connect", {"device_id": device_id})
        assert (status, answer["message_type"], answer["device_info"]) == (200, "device_info", INFO)
        self.id = answer["connection_id"]
        self.found: list[Any] = []

    def send(self, payload: Any) -> None:
        status, pending = ask(self.server, "/forward", {"connection_id": self.id, "payload": payload})
        assert status == 200
        self.found += pending

    def receive(self) -> Any:
        while not self.found:
            status, found = ask(self.server, "/poll_messages", {"connection_id": self.id})
            if status != 200:
                return found
            self.found = found
        return self.found.pop(0)

    def close(self) -> None:
        self.server.clock.advance(60)


class EnvelopedClient:
    """`/connect_client`."""

    def __init__(self, peers: Peers, device_id: str) -> None:
        self.socket = peers.pending_client(device_id)
        assert self.socket.receive()["message_type"] == "config"
        assert self.socket.receive() == {"message_type": "device_info", "device_info": INFO}

    def send(self, payload: Any) -> None:
        self.socket.send({"message_type": "forward", "payload": payload})

    def receive(self) -> Any:
        heard = self.socket.receive()
        return heard.get("payload", heard)

    def close(self) -> None:
        self.socket.close()


CLIENTS: dict[str, Callable[[Peers, str], Any]] = {
    "messages": EnvelopedClient,
    "bare": BareClient,
    "long polling": PolledClient,
    "polling": lambda peers, device_id: PolledClient(peers, device_id, wait=0),
    "the reference's polling": ReferenceClient,
}


@contextmanager
def both_sockets(tmp_path: Path, **settings: Any) -> Iterator[tuple[SignalingServer, Peers, Path]]:
    path = tmp_path / "operator"
    with SignalingServer(device_socket=path, control_socket=tmp_path / "control", **settings) as server:
        with peers_of(server) as peers:
            yield server, peers, path


def register_local_device(path: Path, device_id: str = DEVICE_ID, **more: Any) -> SeqpacketPeer:
    device = SeqpacketPeer(path)
    device.send({"message_type": "register", "device_id": device_id, "device_info": INFO, **more})
    assert device.receive()["message_type"] == "config"
    return device


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("transport", ["network", "device socket"])
def test_each_device_kind_relays_with_each_client_kind(tmp_path: Path, transport: str, kind: str) -> None:
    with both_sockets(tmp_path) as (_server, peers, path):
        device: WebSocketPeer | SeqpacketPeer = (
            register_local_device(path) if transport == "device socket" else peers.device(DEVICE_ID, INFO)
        )
        client = CLIENTS[kind](peers, DEVICE_ID)
        for payload in ({"type": "request-offer"}, "text", [1, {"a": None}], None):
            client.send(payload)
            assert device.receive() == {"message_type": "client_msg", "client_id": 1, "payload": payload}
            device.send({"message_type": "forward", "client_id": 1, "payload": payload})
            assert client.receive() == payload
        another = CLIENTS[kind](peers, DEVICE_ID)
        client.close()
        if kind in ("messages", "bare"):
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
            device.close()
            assert another.receive() == {"error": "Device disconnected"}
            if kind == "bare":
                assert another.socket.wait_closed() == 1000
        else:
            # Both have stayed away for too long.
            left = {device.receive()["client_id"] for _ in range(2)}
            assert left == {1, 2}


@pytest.mark.parametrize("kind", ["long polling", "polling", "the reference's polling"])
def test_polled_client_receives_device_disconnected(tmp_path: Path, kind: str) -> None:
    with both_sockets(tmp_path) as (_server, peers, path):
        device = register_local_device(path)
        client = CLIENTS[kind](peers, DEVICE_ID)
        device.send({"message_type": "forward", "client_id": 1, "payload": "last words"})
        assert client.receive() == "last words"
        device.close()
        if kind == "the reference's polling":
            assert client.receive() == {"error": "Error: Unknown connection ID: Device disconnected", "type": "error"}
        else:
            assert client.receive() == {"error": "Device disconnected"}


# The device socket ---------------------------------------------------------------------------------------------------


def test_device_socket_file_is_created_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "operator"
    with SignalingServer(device_socket=path) as server:
        mode = os.lstat(path).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o770
        assert os.listdir(tmp_path) == ["operator"]
        _device = register_local_device(path, device_port=8443)
        device = server.wait_for_device(DEVICE_ID, timeout=PATIENCE)
        assert (device.device_port, device.address) == (8443, None)
    assert os.listdir(tmp_path) == []


def test_stale_socket_file_is_replaced_and_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "operator"
    left = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    left.bind(str(path))
    left.close()
    with SignalingServer(device_socket=path):
        _device = register_local_device(path)
        with pytest.raises(BindError, match=r"cannot listen on .*operator: Address already in use"):
            SignalingServer(device_socket=path).start()
        assert path.exists()
    path.write_text("mine")
    with pytest.raises(BindError, match="there is a file that is no socket"):
        SignalingServer(device_socket=path).start()
    assert path.read_text() == "mine"
    with pytest.raises(BindError, match="No such file"):
        SignalingServer(device_socket=tmp_path / "nowhere" / "operator").start()


def test_foreign_file_at_socket_path_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "operator"
    with SignalingServer(device_socket=path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


@pytest.mark.parametrize("path", [7, "", "a\0b", "x" * 97])
def test_invalid_socket_paths_are_config_errors(path: Any) -> None:
    for setting in ("device_socket", "control_socket"):
        with pytest.raises(ConfigError, match=setting):
            SignalingServer(**{setting: path})


def test_local_device_receives_no_error_for_unknown_client(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, _peers, path):
        device = register_local_device(path)
        device.send({"message_type": "forward", "client_id": 7, "payload": 1})
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 7}
        assert server.stats().refused == 1


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (b"[]", "Invalid message format"),
        (b"5", "Invalid message format"),
        (b"rubbish", "Received Invalid JSON"),
        (b"\xff\xfe", "Received Invalid JSON"),
        (b"[" * 100_000, "Received Invalid JSON"),
        (b'{"message_type":"register"}', "Missing device id in registration request"),
        (b'{"message_type":"forward","client_id":1,"payload":1}', "Forward failed: Device not registered"),
        (b'{"message_type":"register","device_id":"a","device_id":"b"}', "Invalid message format"),
        (b'"' + b"x" * 300_000 + b'"', None),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_invalid_packet_closes_only_its_connection(
    tmp_path: Path, packet: bytes, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="cuttlefish_signaling")
    with both_sockets(tmp_path) as (server, peers, path):
        rude, device = SeqpacketPeer(path), register_local_device(path)
        rude.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        rude.send(packet)
        # The connection ends without an error, which would have a real device reconnect twice.
        assert rude.receive() is None
        client = EnvelopedClient(peers, DEVICE_ID)
        client.send(1)
        assert device.receive()["payload"] == 1
        assert server.stats().misbehaved == 1
    if said is not None:
        assert f'closing device unknown address: "{said}"' in caplog.text


def test_duplicate_over_other_transport_is_refused(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (_, peers, path):
        _device = register_local_device(path)
        rival = peers.connect(peers.server.device_url)
        rival.send({"message_type": "register", "device_id": DEVICE_ID})
        assert rival.receive() == {"error": f"Device already registered: {DEVICE_ID}"}


# The control socket --------------------------------------------------------------------------------------------------


def pre_register(control: SeqpacketPeer, *devices: dict[str, Any], group: str = "lab", owner: str = "alice") -> Any:
    control.send({"message_type": "pre-register", "group_name": group, "owner": owner, "devices": list(devices)})
    return control.receive()


def test_registration_of_pre_registered_device_is_reported(tmp_path: Path) -> None:
    seen = []

    def note(info: Any, ctx: Any) -> Any:
        seen.append((ctx.group_name, ctx.owner, ctx.name, ctx.adb_port))
        return info

    with both_sockets(tmp_path, filter_device_info=note) as (server, peers, path):
        control = SeqpacketPeer(tmp_path / "control")
        peers.device("there")
        answer = pre_register(
            control, {"id": "a", "name": "one", "adb_port": 6520}, {"id": "there", "name": "x"}, {"id": "a"}
        )
        assert answer == [
            {"id": "a", "status": "accepted", "message": ""},
            {"id": "there", "status": "failed", "message": "Device Id already registered"},
            {"id": "a", "status": "failed", "message": "Device Id already pre-registered"},
        ]
        device = register_local_device(path, "a")
        assert control.receive() == {"id": "a", "status": "registered", "message": ""}
        listed = {"device_id": "a", "group_name": "lab", "owner": "alice", "name": "one", "adb_port": 6520}
        other = {"device_id": "there", "group_name": "", "adb_port": 0}
        assert ask(server, "/devices") == (200, [listed, other])
        assert ask(server, "/devices?groupId=lab") == (200, [listed])
        assert ask(server, "/devices?owner=alice&format=ids") == (200, ["a"])
        assert ask(server, "/devices?groupId=l%61b&owner=bob") == (200, [])
        assert ask(server, "/devices/a") == (200, {**listed, "registration_info": INFO})
        assert seen == [("lab", "alice", "one", 6520)]
        found = server.wait_for_device("a", timeout=PATIENCE)
        assert (found.group_name, found.owner, found.name, found.adb_port) == ("lab", "alice", "one", 6520)
        # It stays what it was when it comes back, and can be announced anew once it is gone.
        device.close()
        while len(server.devices()) > 1:
            os.sched_yield()
        device = register_local_device(path, "a")
        assert ask(server, "/devices?groupId=lab") == (200, [listed])
        assert pre_register(control, {"id": "a"})[0]["status"] == "failed"


def test_pending_pre_registrations_end_with_control_connection(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (_, _, path):
        control, other = SeqpacketPeer(tmp_path / "control"), SeqpacketPeer(tmp_path / "control")
        assert pre_register(control, {"id": "a"})[0]["status"] == "accepted"
        assert pre_register(other, {"id": "a"})[0]["message"] == "Device Id already pre-registered"
        control.close()
        while pre_register(other, {"id": "a"})[0]["status"] != "accepted":
            os.sched_yield()
        _device = register_local_device(path, "a")
        assert other.receive() == {"id": "a", "status": "registered", "message": ""}


@pytest.mark.parametrize(
    ("packet", "said", "stays"),
    [
        (b"[]", "Invalid message format", False),
        (b"5", "Invalid message format", False),
        (b"rubbish", "Received Invalid JSON", False),
        (b'{"message_type":"pre-register"}', "Invalid message format", False),
        (b'{"message_type":"pre-register","devices":[{"id":""}]}', "Invalid message format", False),
        (b'{"message_type":"pre-register","devices":[{"id":"a","adb_port":70000}]}', "Invalid message format", False),
        (b'{"message_type":"pre-register","devices":{}}', "Invalid message format", False),
        (b'{"message_type":"register","device_id":"a"}', "Unknown message type: register", True),
        (b"[" * 100_000, "Received Invalid JSON", False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_invalid_control_packets_are_answered_with_error(tmp_path: Path, packet: bytes, said: str, stays: bool) -> None:
    with both_sockets(tmp_path):
        control = SeqpacketPeer(tmp_path / "control")
        control.send(packet)
        assert control.receive() == {"error": said}
        if stays:
            assert pre_register(control, {"id": "a"})[0]["status"] == "accepted"
        else:
            assert control.receive() is None


# Polling -------------------------------------------------------------------------------------------------------------


def test_messages_are_kept_until_acknowledged(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        device, client = register_local_device(path), PolledClient(peers, DEVICE_ID)
        for number in range(5):
            device.send({"message_type": "forward", "client_id": 1, "payload": number})
        while len(ask(server, f"{client.path}/messages")[1]) < 5:
            os.sched_yield()

        def numbers(query: str) -> Any:
            return [message["payload"] for message in ask(server, f"{client.path}/messages?{query}")[1]]

        assert numbers("start=0") == [0, 1, 2, 3, 4]
        assert numbers("start=0&count=2") == [0, 1]
        assert numbers("start=2&count=1") == [2]
        assert numbers("start=2&count=0") == []
        assert numbers("start=9") == []
        assert numbers(f"start={10**18}&wait=5") == []
        assert ask(server, f"{client.path}/messages?start=0")[0] == 410, "what was acknowledged is gone"
        assert numbers("start=2") == [2, 3, 4]
        assert numbers("start=5") == []
        assert server.stats().delivered == 5


@pytest.mark.parametrize("query", ["start=-1", "start=x", "count=-2", "wait=-1", "wait=nan"])
def test_invalid_poll_query_is_400(tmp_path: Path, query: str) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        _device = register_local_device(path)
        client = PolledClient(peers, DEVICE_ID)
        status, answer = ask(server, f"{client.path}/messages?{query}")
        assert (status, answer) == (400, {"error": f"{query.split('=')[0]}: must be a number, 0 or more"})


def test_long_poll_returns_when_message_arrives(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (_server, peers, path):
        device, client = register_local_device(path), PolledClient(peers, DEVICE_ID)
        heard: list[Any] = []
        waiting = threading.Thread(target=lambda: heard.append(client.receive()))
        waiting.start()
        device.send({"message_type": "forward", "client_id": 1, "payload": "now"})
        waiting.join(PATIENCE)
        assert heard == ["now"]


def test_long_poll_does_not_delay_stop(tmp_path: Path) -> None:
    polled = threading.Event()

    def note(ctx: Any) -> None:
        if ctx.path.endswith("/messages"):
            polled.set()

    with both_sockets(tmp_path, authorize=note, stop_timeout=60) as (server, peers, path):
        device, client = register_local_device(path), PolledClient(peers, DEVICE_ID)
        answers: list[Any] = []
        waiting = threading.Thread(
            target=lambda: answers.append(ask(server, f"{client.path}/messages?start=0&wait=25"))
        )
        waiting.start()
        assert polled.wait(PATIENCE)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 10
        waiting.join(PATIENCE)
        assert answers[0] in [(200, []), (404, {"error": "Unknown connection"})], "it is answered, not cut off"
        device.close()


def test_idle_polled_client_times_out(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        device = register_local_device(path)
        away, there = PolledClient(peers, DEVICE_ID), PolledClient(peers, DEVICE_ID)
        with server.clock.frozen() as clock:
            clock.advance(20)
            assert ask(server, f"{there.path}/messages") == (200, [])
            clock.advance(20)
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
            assert ask(server, f"{away.path}/messages") == (404, {"error": "Unknown connection"})
            assert ask(server, f"{away.path}/:forward", {"payload": 1}) == (404, {"error": "Unknown connection"})
            there.send("still here")
            assert device.receive()["payload"] == "still here"


def test_outbox_overflow_of_polled_client_is_slow_consumer(tmp_path: Path) -> None:
    with both_sockets(tmp_path, limits=Limits(outbox_messages=10)) as (server, peers, path):
        device, client = register_local_device(path), PolledClient(peers, DEVICE_ID)
        for number in range(30):
            device.send({"message_type": "forward", "client_id": 1, "payload": number})
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        start, status = 0, 200
        found: Any = []
        while status == 200:
            status, found = ask(server, f"{client.path}/messages?start={start}")
            start += len(found) if status == 200 else 0
        assert (status, found) == (404, {"error": "Slow consumer"})
        assert start < 30
        assert server.stats().slow_consumers == 1


BODIES = [b"", b"[]", b"5", b"{", b"\xff", b"[" * 5000, b'{"device_id":1,"device_id":2}']


@pytest.mark.parametrize("path", ["/polled_connections", "/connect", "/forward", "/poll_messages"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body)[:20])
def test_invalid_bodies_are_400(server: SignalingServer, path: str, body: bytes) -> None:
    status, answer = ask(server, path, raw=body)
    assert (status, set(answer)) == (400, {"error"} if path == "/polled_connections" else {"error", "type"})


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/polled_connections", {}, 400, "Invalid connection request: Missing device id"),
        ("/polled_connections", {"device_id": 7}, 400, "Invalid connection request: Missing device id"),
        ("/polled_connections", {"device_id": "nobody"}, 404, "Device not found"),
        ("/polled_connections/x/:forward", {"payload": 1}, 404, "Unknown connection"),
        ("/polled_connections/x/messages", None, 404, "Unknown connection"),
        ("/devices/nobody", None, 404, "Device not found"),
        ("/polled_connections/x/messages", {}, 405, "Method not allowed"),
        ("/devices/x/connect", None, 426, "This is a WebSocket endpoint"),
    ],
)
def test_unknown_devices_and_connections_are_refused(
    server: SignalingServer, path: str, body: Any, status: int, said: str
) -> None:
    assert ask(server, path, body) == (status, {"error": said})


def test_oversized_polled_forwards_are_413(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (server, peers, path):
        device, client = register_local_device(path), PolledClient(peers, DEVICE_ID)
        assert ask(server, f"{client.path}/:forward", {}) == (
            400,
            {"error": "Forward failed: No payload present in message"},
        )
        status, answer = ask(server, f"{client.path}/:forward", {"payload": "x" * 250_000})
        assert status == 413
        assert answer["error"].startswith("Forward failed: Message too large: 250056 bytes for the device")
        status, answer = ask(server, f"{client.path}/:forward", {"payload": "x" * 300_000})
        assert (status, answer) == (413, {"error": "Body too large: at most 262144 bytes"})
        client.send("x" * 200_000)
        assert len(device.receive()["payload"]) == 200_000


def test_polled_forward_to_websocket_device_may_fill_one_frame(tmp_path: Path) -> None:
    """The bytes around the payload depend on the number of the client (docs/protocol.md 2.8)."""
    with both_sockets(tmp_path) as (server, peers, _path):
        device = peers.device("remote", INFO)
        client = PolledClient(peers, "remote")
        around = len('{"message_type":"client_msg","client_id":1,"payload":""}')
        status, answer = ask(server, f"{client.path}/:forward", {"payload": "x" * (65_537 - around)})
        error = "Forward failed: Message too large: 65537 bytes for the device, which takes at most 65536"
        assert (status, answer) == (413, {"error": error})
        client.send("x" * (65_536 - around))
        assert len(device.receive()["payload"]) == 65_536 - around


def test_polled_connections_are_limited_by_max_polled(tmp_path: Path) -> None:
    with both_sockets(tmp_path, limits=Limits(max_polled=1)) as (server, peers, path):
        _device = register_local_device(path)
        PolledClient(peers, DEVICE_ID)
        full = {"error": "Too many polled connections"}
        assert ask(server, "/polled_connections", {"device_id": DEVICE_ID}) == (503, full)
        assert ask(server, "/connect", {"device_id": DEVICE_ID}) == (503, {**full, "type": "error"})
        assert server.stats().turned_away == 2


def test_polled_connect_waits_for_device(tmp_path: Path) -> None:
    with both_sockets(tmp_path, device_wait_timeout=None) as (server, _peers, path):
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(ask(server, "/connect", {"device_id": "late"})))
        waiting.start()
        while server.stats().connections < 1:
            os.sched_yield()
        device = register_local_device(path, "late")
        waiting.join(PATIENCE)
        assert answers[0][1].get("device_info") == INFO
        device.close()


def test_polled_connect_wait_is_bounded() -> None:
    with SignalingServer(device_wait_timeout=None, limits=Limits(polled_timeout=0.2)) as server:
        assert ask(server, "/polled_connections", {"device_id": "late"}) == (404, {"error": "Device not found"})


def test_refused_polled_connect_takes_no_slot(tmp_path: Path) -> None:
    with both_sockets(tmp_path, limits=Limits(max_polled=2)) as (server, peers, path):
        device = register_local_device(path)
        for _ in range(10):
            assert ask(server, "/connect", {"device_id": "nobody"})[0] == 404
        PolledClient(peers, DEVICE_ID)
        device.close()


@pytest.mark.parametrize("path", ["/devices/%FF", "/polled_connections/%FF/messages"])
def test_id_in_path_must_be_utf_8(server: SignalingServer, path: str) -> None:
    assert ask(server, path) == (400, {"error": "The id in the path is no UTF-8"})


def test_hooks_apply_to_polling_listings_and_bare_clients(tmp_path: Path) -> None:
    def may(ctx: Any) -> Any:
        if ctx.query.get("no"):
            raise Refused("not you")
        return Grant("alice", devices=["mine"]) if ctx.role != "device" else None

    def show(info: Any, ctx: Any) -> Any:
        assert ctx.client.identity == "alice"
        return "filtered"

    with both_sockets(tmp_path, authorize=may, filter_device_info=show) as (server, peers, path):
        device = register_local_device(path, "mine")
        other = register_local_device(path, "other")
        no_device = "Connection failed: Device not found: 'other'"
        for path_, missing, more in (
            ("/polled_connections", "Device not found", {}),
            ("/connect", no_device, {"type": "error"}),
        ):
            assert ask(server, path_, {"device_id": "mine"})[1]["device_info"] == "filtered"
            assert ask(server, path_, {"device_id": "other"}) == (404, {"error": missing, **more})
            assert ask(server, f"{path_}?no=1", {"device_id": "mine"}) == (403, {"error": "not you", **more})
        assert ask(server, "/devices/mine")[1]["registration_info"] == "filtered"
        assert ask(server, "/devices/other") == (404, {"error": "Device not found"})
        assert [entry["device_id"] for entry in ask(server, "/devices")[1]] == ["mine"]
        socket = peers.connect(f"{server.url.replace('http', 'ws', 1)}/devices/other/connect")
        assert socket.receive() == {"error": "Connection failed: Device not found: 'other'"}
        assert socket.wait_closed() == 1008
        assert len(server.devices()) == 2
        device.close()
        other.close()


def test_invalid_json_of_bare_client_is_closed_with_1007(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (_server, peers, path):
        device = register_local_device(path)
        client = BareClient(peers, DEVICE_ID)
        client.socket.socket.send(' {"a": 1.0} ')
        assert device.socket.recv(1000) == b'{"message_type":"client_msg","client_id":1,"payload":{"a": 1.0}}'
        client.socket.socket.send("{")
        assert client.receive() == {"error": "Received Invalid JSON"}
        assert client.socket.wait_closed() == 1007
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}


def test_faults_and_journal_cover_each_client_kind(tmp_path: Path) -> None:
    with both_sockets(tmp_path, journal=True) as (server, peers, path):
        device = register_local_device(path)
        clients = [CLIENTS[kind](peers, DEVICE_ID) for kind in CLIENTS]
        with server.faults.drop(to="device", times=1):
            for number, client in enumerate(clients):
                client.send({"type": "offer", "number": number})
            heard = {device.receive()["payload"]["number"] for _ in range(len(clients) - 1)}
        assert len(heard) == len(clients) - 1
        assert server.stats().dropped == 1
        offers = [entry for entry in server.journal.entries() if entry.message_type == "forward"]
        assert {entry.client for entry in offers} == {1, 2, 3, 4, 5}
        assert {entry.device for entry in offers} == {DEVICE_ID}
        infos = [entry for entry in server.journal.entries() if entry.message_type == "device_info"]
        assert {entry.client for entry in infos} == {1, 2, 3, 4, 5}
