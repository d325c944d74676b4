"""The device socket and the control socket (docs/protocol.md 5.1 and 5.2)."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import BindError, ConfigError, Limits, SignalingServer

from client_kinds import DEVICE_ID, INFO, EnvelopedClient, both_sockets, register_local_device
from http_requests import request, request_json
from peers import PATIENCE, SeqpacketPeer, wait_until

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


def test_files_beside_socket_are_not_touched(tmp_path: Path) -> None:
    """Also those that look like a temporary file of this process, and sockets that a killed process left."""
    path = tmp_path / "operator"
    beside = [tmp_path / f"operator{suffix}" for suffix in (f".{os.getpid()}", ".1", ".tmp", "~", ".00000000")]
    for file in beside:
        file.write_text(file.name)
    left = tmp_path / "operator.left"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(str(left))
    for _ in range(2):
        with SignalingServer(device_socket=path, control_socket=tmp_path / "control"):
            assert stat.S_ISSOCK(path.lstat().st_mode)
        assert sorted(tmp_path.iterdir()) == sorted([*beside, left])
    assert [file.read_text() for file in beside] == [file.name for file in beside]


def test_local_sockets_count_apart_from_network(tmp_path: Path) -> None:
    limits = Limits(max_connections=1, new_per_second=1, max_device_socket_connections=1, max_control_connections=1)
    devices, control = tmp_path / "devices", tmp_path / "control"
    with SignalingServer(device_socket=devices, control_socket=control, limits=limits) as server, ExitStack() as stack:
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        _device, first = register_local_device(devices), SeqpacketPeer(control)
        assert pre_register(first, {"id": "a"})[0]["status"] == "accepted"
        assert [SeqpacketPeer(path).receive() for path in (devices, control)] == [None, None]
        assert server.stats().turned_away == 2
        # A full server answers these two over the network.
        assert [request(server, "GET", path).status for path in ("/healthz", "/metrics", "/devices")] == [200, 200, 503]


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
        (b"no json", "Received Invalid JSON"),
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
        invalid, device = SeqpacketPeer(path), register_local_device(path)
        invalid.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        invalid.send(packet)
        # The connection ends without an error message: a real device would reconnect twice.
        assert invalid.receive() is None
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
        assert request_json(server, "/devices") == (200, [listed, other])
        assert request_json(server, "/devices?groupId=lab") == (200, [listed])
        assert request_json(server, "/devices?owner=alice&format=ids") == (200, ["a"])
        assert request_json(server, "/devices?groupId=l%61b&owner=bob") == (200, [])
        assert request_json(server, "/devices/a") == (200, {**listed, "registration_info": INFO})
        assert seen == [("lab", "alice", "one", 6520)]
        found = server.wait_for_device("a", timeout=PATIENCE)
        assert (found.group_name, found.owner, found.name, found.adb_port) == ("lab", "alice", "one", 6520)
        # The group and the owner outlive a reconnect, and a registered id cannot be pre-registered.
        device.close()
        wait_until(lambda: len(server.devices()) == 1)
        device = register_local_device(path, "a")
        assert request_json(server, "/devices?groupId=lab") == (200, [listed])
        assert pre_register(control, {"id": "a"})[0]["status"] == "failed"


def test_pending_pre_registrations_end_with_control_connection(tmp_path: Path) -> None:
    with both_sockets(tmp_path) as (_, _, path):
        control, other = SeqpacketPeer(tmp_path / "control"), SeqpacketPeer(tmp_path / "control")
        assert pre_register(control, {"id": "a"})[0]["status"] == "accepted"
        assert pre_register(other, {"id": "a"})[0]["message"] == "Device Id already pre-registered"
        control.close()
        wait_until(lambda: pre_register(other, {"id": "a"})[0]["status"] == "accepted")
        _device = register_local_device(path, "a")
        assert other.receive() == {"id": "a", "status": "registered", "message": ""}


def test_devices_that_left_make_room_for_announcements(tmp_path: Path) -> None:
    with both_sockets(tmp_path, limits=Limits(max_devices=3)) as (server, _, path):
        control = SeqpacketPeer(tmp_path / "control")
        for number in range(10):
            device_id = f"run-{number}"
            assert pre_register(control, {"id": device_id})[0] == {"id": device_id, "status": "accepted", "message": ""}
            device = register_local_device(path, device_id)
            assert control.receive()["status"] == "registered"
            device.close()
            wait_until(lambda: not server.devices())
        there = []
        for device_id in ("a", "b", "c"):
            assert pre_register(control, {"id": device_id})[0]["status"] == "accepted"
            there.append(register_local_device(path, device_id))
            assert control.receive()["status"] == "registered"
        assert pre_register(control, {"id": "d"})[0] == {"id": "d", "status": "failed", "message": "Too many devices"}


@pytest.mark.parametrize(
    ("packet", "said", "stays"),
    [
        (b"[]", "Invalid message format", False),
        (b"5", "Invalid message format", False),
        (b"no json", "Received Invalid JSON", False),
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
