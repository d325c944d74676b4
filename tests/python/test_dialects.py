"""Every kind of device relays with every kind of client: today's Cuttlefish, the reference, and WebSocket clients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import Grant, Refused

from client_kinds import CLIENTS, DEVICE_ID, INFO, BareClient, both_sockets, register_local_device
from http_requests import request_json
from peers import SeqpacketPeer, WebSocketPeer


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
            # Both clients have timed out.
            left = {device.receive()["client_id"] for _ in range(2)}
            assert left == {1, 2}


@pytest.mark.parametrize("kind", ["long polling", "polling", "the reference's polling"])
def test_polled_client_receives_device_disconnected(tmp_path: Path, kind: str) -> None:
    with both_sockets(tmp_path) as (_server, peers, path):
        device = register_local_device(path)
        client = CLIENTS[kind](peers, DEVICE_ID)
        device.send({"message_type": "forward", "client_id": 1, "payload": "last"})
        assert client.receive() == "last"
        device.close()
        if kind == "the reference's polling":
            assert client.receive() == {"error": "Error: Unknown connection ID: Device disconnected", "type": "error"}
        else:
            assert client.receive() == {"error": "Device disconnected"}


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
            assert request_json(server, path_, {"device_id": "mine"})[1]["device_info"] == "filtered"
            assert request_json(server, path_, {"device_id": "other"}) == (404, {"error": missing, **more})
            assert request_json(server, f"{path_}?no=1", {"device_id": "mine"}) == (403, {"error": "not you", **more})
        assert request_json(server, "/devices/mine")[1]["registration_info"] == "filtered"
        assert request_json(server, "/devices/other") == (404, {"error": "Device not found"})
        assert [entry["device_id"] for entry in request_json(server, "/devices")[1]] == ["mine"]
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
