"""The hook `ice_servers`, and the ICE servers that peers get."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from cuttlefish_signaling import HookResultError, IceContext, IceServer, Refused, SignalingServer, TurnRest

from hook_kinds import both
from peers import PATIENCE, assert_relays, peers_of, wait_until


@both
def test_ice_servers_hook_is_called_for_each_peer(way: Any) -> None:
    def ice(ctx: IceContext) -> list[Any]:
        return [
            IceServer("turn:turn.lab", username=f"{ctx.role}/{ctx.device_id}/{ctx.peer.address}", credential="c"),
            {"urls": ["stun:a.lab", "stuns:b.lab:5349"]},
        ]

    with SignalingServer(ice_servers=way(ice)) as server, peers_of(server) as peers:
        device = peers.pending_device()
        stun = {"urls": ["stun:a.lab", "stuns:b.lab:5349"]}
        turn = {"urls": ["turn:turn.lab"], "username": "device/cvd-1/127.0.0.1", "credential": "c"}
        assert device.receive() == {"message_type": "config", "ice_servers": [turn, stun]}
        client = peers.pending_client()
        assert client.receive()["ice_servers"] == [{**turn, "username": "client/cvd-1/127.0.0.1"}, stun]
        with urllib.request.urlopen(f"{server.url}/infra_config", timeout=PATIENCE) as answer:
            config = json.load(answer)
        assert config["ice_servers"][0]["username"] == "client/None/127.0.0.1"


@pytest.mark.parametrize(
    ("result", "named"),
    [
        ([IceServer("stun:ok.lab"), IceServer("http://x")], r"ice_servers\[1\]\.urls\[0\]: unknown ICE scheme"),
        ([{"urls": "turn:x.lab"}], r"ice_servers\[0\]: a turn: or turns: URL needs username and credential"),
        ([{"uri": "stun:x.lab"}], r"ice_servers\[0\]: urls is missing"),
        ("stun:x.lab", "ice_servers: expected a list"),
        (None, "ice_servers: expected a list"),
        ([object()], "ice_servers: cannot be written as JSON"),
    ],
)
def test_invalid_ice_servers_result_names_entry(result: Any, named: str) -> None:
    with SignalingServer(ice_servers=lambda ctx: result) as server, peers_of(server) as peers:
        device = peers.pending_device()
        assert device.receive() == {"error": "Internal error"}
        assert device.wait_closed() == 1011
        (failure,) = server.hook_errors
        assert failure.hook == "ice_servers"
        with pytest.raises(HookResultError, match=f"^ice_servers returned an invalid result: {named}"):
            raise failure.error


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Refused("no relay for you"), 403, "no relay for you"),
        (Refused(status=401), 401, "Not authorized"),
        (KeyError("a secret detail"), 500, "Internal error"),
    ],
)
def test_ice_servers_refusal_reaches_peer(error: Exception, status: int, reason: str) -> None:
    def ice(ctx: IceContext) -> Any:
        raise error

    with SignalingServer(ice_servers=ice) as server, peers_of(server) as peers:
        with pytest.raises(urllib.error.HTTPError) as http:
            urllib.request.urlopen(f"{server.url}/infra_config", timeout=PATIENCE)
        assert http.value.code == status
        assert json.load(http.value) == {"error": reason}
        device = peers.pending_device()
        assert device.receive() == {"error": reason}
        assert device.wait_closed() == (1011 if status == 500 else 1008)


def test_ice_hook_that_is_set_later_sees_requests_of_connected_peers() -> None:
    asked: list[IceContext] = []

    def ice(ctx: IceContext) -> list[Any]:
        asked.append(ctx)
        return []

    with SignalingServer() as server, peers_of(server) as peers:
        device = peers.connect(f"{server.device_url}?rack=7", additional_headers={"X-Team": "lab"})
        device.send({"message_type": "register", "device_id": "cvd-1"})
        device.receive()
        server.set_ice_servers(ice)
        assert device.receive()["message_type"] == "config"
    (ctx,) = asked
    assert (ctx.role, ctx.device_id, ctx.peer.path, ctx.peer.query) == (
        "device",
        "cvd-1",
        "/register_device",
        {"rack": "7"},
    )
    assert ctx.peer.headers["x-team"] == "lab"
    assert ctx.peer.headers["upgrade"] == "websocket"


def test_waiting_client_gets_new_turn_credentials_before_device_info() -> None:
    turn = TurnRest("turn:turn.lab", secret="s3cret", ttl=600)
    with SignalingServer(ice_servers=turn, device_wait_timeout=None) as server, peers_of(server) as peers:
        with server.clock.frozen() as clock:
            client = peers.pending_client()
            first = client.receive()["ice_servers"][0]["username"]
            clock.advance(301)
            peers.device()
            second = client.receive()["ice_servers"][0]["username"]
            assert int(second.split(":")[0]) - int(first.split(":")[0]) == 301
            assert client.receive()["message_type"] == "device_info"


def test_failed_ice_renewal_keeps_device_connected() -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device, client = peers.device(), peers.client()
        server.set_ice_servers(lambda ctx: 1 / 0)
        assert_relays(client, device)
        wait_until(lambda: server.hook_errors)
        assert isinstance(server.hook_errors[0].error, ZeroDivisionError)
