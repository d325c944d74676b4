"""Tokens and grants that expire while their peers are connected (docs/protocol.md 4.3.18)."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from test_jwt import bearer, key_file, token
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from cuttlefish_signaling import AuthorizeContext, ConfigError, Grant, Jwt, SignalingServer, StaticTokens

from http_requests import open_response, request, request_json
from peers import PATIENCE, assert_relays, peers_of

EXPIRED = {"error": "Authorization expired"}


def lasting(ctx: AuthorizeContext) -> Grant | None:
    """A grant for as many seconds as the query says."""
    seconds = ctx.query.get("for")
    return Grant(ctx.role, valid_for=float(seconds)) if seconds else None


def test_expired_peers_are_closed_by_the_clock_of_the_server() -> None:
    with SignalingServer(authorize=lasting) as server, peers_of(server) as peers:
        server.clock.freeze()
        device = peers.device()
        short, long = (peers.pending_client(query=f"?for={seconds}") for seconds in (5, 9))
        for client in (short, long):
            assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
        polled = request_json(server, "/polled_connections?for=5", {"device_id": "cvd-1"})[1]["connection_id"]
        mortal = peers.connect(f"{server.device_url}?for=5")
        mortal.send({"message_type": "register", "device_id": "cvd-2"})
        assert mortal.receive()["message_type"] == "config"
        cuttlefish = peers.connect(f"{server.device_url}?for=5", subprotocols=["webrtc-operator"])
        server.clock.advance(4.9)
        assert_relays(long, device, 2)
        assert len(server.clients()) == 3
        server.clock.advance(0.1)
        assert (short.receive(), short.wait_close_frame()) == (EXPIRED, (1008, "Authorization expired"))
        assert (mortal.receive(), mortal.wait_close_frame()) == (EXPIRED, (1008, "Authorization expired"))
        assert cuttlefish.wait_close_frame() == (1008, "Authorization expired"), "a Cuttlefish device hears no error"
        left = {device.receive()["client_id"], device.receive()["client_id"]}
        assert left == {1, 3}, "the device is told of both"
        answer = request(server, "POST", f"/polled_connections/{polled}/:forward?for=9", b'{"payload":1}')
        assert answer.status in (400, 404)
        assert_relays(long, device, 2)
        assert [one.device_id for one in server.devices()] == ["cvd-1"]


def test_adb_ends_when_the_grant_expires() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with SignalingServer(adb=True, authorize=lasting) as server, peers_of(server) as peers:
        server.clock.freeze()
        peers.device("cvd-1", {"adb_port": listener.getsockname()[1]})
        with connect(f"{server.url.replace('http', 'ws', 1)}/devices/cvd-1/adb?for=5") as client:
            adb, _ = listener.accept()
            client.send(b"before")
            assert adb.recv(6) == b"before"
            server.clock.advance(5)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(timeout=PATIENCE)
            assert closed.value.rcvd is not None
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "Authorization expired")
        adb.close()
    listener.close()


def test_events_of_the_dashboard_end_when_the_grant_expires() -> None:
    with SignalingServer(dashboard=True, authorize=lasting) as server:
        server.clock.freeze()
        with open_response(server, "GET", "/dashboard/events?for=5") as answer:
            assert answer.status == 200
            assert answer.readline() != b""
            server.clock.advance(5)
            while answer.readline():
                pass  # Until the end of the stream.


def test_polled_connection_ends_when_the_grant_of_its_opening_expires() -> None:
    with SignalingServer(authorize=lasting) as server, peers_of(server) as peers:
        server.clock.freeze()
        device = peers.device()
        polled = request_json(server, "/polled_connections?for=5", {"device_id": "cvd-1"})[1]["connection_id"]
        server.clock.advance(5)
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        assert request_json(server, f"/polled_connections/{polled}/messages?for=5")[0] in (400, 404)


def test_proxied_peers_are_closed_when_their_grant_expires() -> None:
    with SignalingServer() as behind, SignalingServer(upstream=behind.url, authorize=lasting) as proxy:
        with peers_of(behind) as direct, peers_of(proxy) as peers:
            proxy.clock.freeze()
            device = direct.device()
            short, long = (peers.pending_client(query=f"?for={seconds}") for seconds in (5, 9))
            for client in (short, long):
                assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
            proxy.clock.advance(4.9)
            assert_relays(long, device, 2)
            proxy.clock.advance(0.1)
            assert short.wait_close_frame() == (1008, "Authorization expired")
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
            assert_relays(long, device, 2)
            proxy.clock.advance(4)
            assert long.wait_close_frame() == (1008, "Authorization expired")
            assert device.receive() == {"message_type": "client_disconnected", "client_id": 2}


def test_kept_peers_stay_behind_a_proxy() -> None:
    with SignalingServer() as behind:
        with SignalingServer(upstream=behind.url, authorize=lasting, on_token_expiry="keep") as proxy:
            with peers_of(behind) as direct, peers_of(proxy) as peers:
                device, client = direct.device(), peers.pending_client(query="?for=5")
                assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
                proxy.clock.advance(60)
                assert_relays(client, device)


def test_kept_peers_stay_and_need_another_token(tmp_path: Path) -> None:
    jwt = Jwt([key_file(tmp_path)], leeway=0)
    text = bearer(token())
    with SignalingServer(jwt=jwt, on_token_expiry="keep") as server, peers_of(server) as peers:
        device, client = peers.device(additional_headers=text), peers.client(additional_headers=text)
        server.clock.advance(3601)
        assert_relays(client, device)
        assert request(server, "GET", "/devices", headers=text).status == 401


def test_token_of_an_issuer_ends_its_connection_after_the_leeway(tmp_path: Path) -> None:
    jwt = Jwt([key_file(tmp_path)], leeway=30, needed_for=["client"])
    with SignalingServer(jwt=jwt) as server, peers_of(server) as peers:
        server.clock.freeze()
        device, client = peers.device(), peers.client(additional_headers=bearer(token()))
        server.clock.advance(3600)
        assert_relays(client, device)
        server.clock.advance(31)
        assert (client.receive(), client.wait_close_frame()) == (EXPIRED, (1008, "Authorization expired"))


def test_token_of_a_file_ends_its_connection(tmp_path: Path) -> None:
    (tmp_path / "tokens.toml").write_text('[[tokens]]\ntoken = "s3cret"\nexpires = 2040-01-01T00:00:00Z\n')
    with SignalingServer(authorize=StaticTokens.from_file(tmp_path / "tokens.toml")) as server:
        with peers_of(server) as peers:
            device = peers.device(additional_headers=bearer("s3cret"))
            server.clock.advance(600_000_000)
            assert (device.receive(), device.wait_close_frame()) == (EXPIRED, (1008, "Authorization expired"))


@pytest.mark.parametrize("seconds", [0, -1, True, "1", float("nan"), 10**10])
def test_time_of_a_grant_is_a_number_above_0(seconds: Any) -> None:
    with pytest.raises(ConfigError, match=r"Grant\.valid_for: must be a number of seconds or None"):
        Grant("alice", valid_for=seconds)
