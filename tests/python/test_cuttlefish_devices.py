"""Cuttlefish's own devices, which must never be sent an error, and client ids for them (docs/protocol.md 2.5 and 4)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import ConfigError, Limits, Refused, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from http_requests import request
from peers import OPERATOR_SUBPROTOCOL, Peers, SeqpacketPeer, WebSocketPeer, peers_of

CONFIG = {"message_type": "config", "ice_servers": []}


def pending_device(peers: Peers, device_id: str = "cvd-1") -> WebSocketPeer:
    """A device with the subprotocol of Cuttlefish's own devices, which has sent `register`."""
    return peers.pending_device(device_id, subprotocols=OPERATOR_SUBPROTOCOL)


@contextmanager
def registered(**settings: Any) -> Iterator[tuple[SignalingServer, Peers, WebSocketPeer]]:
    """A server, and a device of this kind on it that has received its config."""
    with SignalingServer(**settings) as server, peers_of(server) as peers:
        yield server, peers, peers.device(subprotocols=OPERATOR_SUBPROTOCOL)


def test_disconnected_device_is_closed_without_error() -> None:
    with registered() as (server, _, device):
        server.disconnect_device("cvd-1")
        assert device.wait_close_frame() == (1008, "Disconnected by the server's operator")


def test_hook_failure_and_refusal_close_device_without_error() -> None:
    reason = "not " + "today" * 40

    def ice_servers(ctx: Any) -> list[Any]:
        if ctx.device_id == "failed":
            raise RuntimeError("no TURN server")
        raise Refused(reason)

    with SignalingServer(ice_servers=ice_servers) as server, peers_of(server) as peers:
        assert pending_device(peers, "failed").wait_close_frame() == (1011, "Internal error")
        assert pending_device(peers, "refused").wait_close_frame() == (1008, reason[:123])


def test_limits_close_device_without_error() -> None:
    limits = Limits(error_burst=3, error_per_second=1, max_devices=1)
    with SignalingServer(limits=limits) as server, peers_of(server) as peers:
        # Connected before the device registers: a later connection is refused by HTTP.
        late = peers.connect(server.device_url, subprotocols=OPERATOR_SUBPROTOCOL)
        device = peers.device(subprotocols=OPERATOR_SUBPROTOCOL)
        late.send({"message_type": "register", "device_id": "other"})
        assert late.wait_close_frame() == (1013, "Registration failed: Too many devices")
        for _ in range(4):
            device.send({"message_type": "?"})
        assert device.wait_close_frame() == (1008, "Too many errors: at most 1 a second")
        assert server.stats().errors_withheld == 4


def test_server_stop_closes_device_without_error() -> None:
    with registered() as (server, _, device):
        server.stop()
        assert device.wait_close_frame() == (1001, "server stopping")


def test_forwards_to_unknown_clients_do_not_count_as_errors() -> None:
    """The peers of a real device outlive a restart of the server: the device forwards to all earlier clients."""
    with registered(limits=Limits(error_burst=1, error_per_second=1)) as (server, _, device):
        for client_id in range(1, 50):
            device.send({"message_type": "forward", "client_id": client_id, "payload": {}})
        for client_id in range(1, 50):
            assert device.receive() == {"message_type": "client_disconnected", "client_id": client_id}
        assert server.stats().refused == 49


def test_client_with_operator_subprotocol_receives_errors() -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        client = peers.pending_client("nowhere", subprotocols=OPERATOR_SUBPROTOCOL)
        assert client.receive() == CONFIG
        assert client.receive() == {"error": "Connection failed: Device not found: 'nowhere'"}
        assert client.wait_close_frame() == (1008, "Connection failed: Device not found: 'nowhere'")


def test_device_port_is_accepted_on_device_socket_only(tmp_path: Path) -> None:
    """The subprotocol does not make a device on the network trusted."""
    options: dict[str, Any] = {"device_socket": tmp_path / "devices", "proxy_device_files": True}
    with SignalingServer(**options) as server, peers_of(server) as peers:
        remote = peers.connect(server.device_url, subprotocols=OPERATOR_SUBPROTOCOL)
        remote.send({"message_type": "register", "device_id": "remote", "device_port": 22})
        assert remote.receive() == CONFIG
        local = SeqpacketPeer(tmp_path / "devices")
        local.send({"message_type": "register", "device_id": "local", "device_port": 1})
        assert local.receive() == CONFIG
        for device_id, status in (("remote", 404), ("local", 502)):
            assert request(server, "GET", f"/devices/{device_id}/files/client.html").status == status
        local.close()


# Client ids -----------------------------------------------------------------------------------------------------------


def unique_id() -> int:
    """The first client id of a registration at this moment."""
    return 1 + time.time_ns() // 10_000_000 % 2**30


def client_id(server: SignalingServer) -> int:
    """The id of a new client of `cvd-1`."""
    with FakeClient(server):
        (client,) = server.clients("cvd-1")
        return client.client_id


def test_from_one_client_ids_continue_after_reregistration() -> None:
    with SignalingServer() as server:
        with FakeDevice(server):
            assert [client_id(server), client_id(server)] == [1, 2]
        with FakeDevice(server):
            assert client_id(server) == 3


def test_unique_client_ids_start_at_time_of_day() -> None:
    with SignalingServer(client_ids="unique") as server:
        least = unique_id()
        with FakeDevice(server):
            first = client_id(server)
            assert least <= first <= unique_id()
            assert client_id(server) == first + 1


def test_unique_client_ids_use_system_clock() -> None:
    """A real device does not follow the clock of the server."""
    with SignalingServer(client_ids="unique") as server, server.clock.frozen() as clock:
        clock.advance(100_000.0)
        with FakeDevice(server):
            assert client_id(server) <= unique_id()


def test_client_ids_setting_is_validated() -> None:
    with pytest.raises(ConfigError, match="client_ids: must be 'from_one' or 'unique', got 'random'"):
        SignalingServer(client_ids="random")  # type: ignore[arg-type]
