"""Routes: errors are JSON for each method, and paths are matched decoded (docs/protocol.md 5.3)."""

from __future__ import annotations

import http.client
import json
import re
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from cuttlefish_signaling import Grant, Limits, Refused, SignalingServer, StaticTokens, TurnRest

from http_requests import open_response, request, request_json
from peers import Peers, peers_of
from polled import polled_client, send_forwards

# Errors, on every path -----------------------------------------------------------------------------------------------

PATHS = {
    "/devices": "GET",
    "/devices/x": "GET",
    "/devices/x/connect": "GET",
    "/devices/x/files/y": "GET",
    "/devices/x/adb": "GET",
    "/infra_config": "GET",
    "/nodes": "GET",
    "/metrics": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
    "/js/server_connector.js": "GET",
    "/dashboard/main.js": "GET",
    "/dashboard/events": "GET",
    "/dashboard/cassette": "GET",
    "/dashboard/disconnect": "POST",
    "/polled_connections/x/messages": "GET",
    "/register_device": "GET",
    "/connect_client": "GET",
    "/polled_connections": "POST",
    "/polled_connections/x/:forward": "POST",
    "/connect": "POST",
    "/forward": "POST",
    "/poll_messages": "POST",
}


ROUTES = Path(__file__).parents[2] / "src" / "server" / "http"
COUNTED_AS_OTHER = {"/healthz", "/readyz"}
"""Paths without a counter of their own in `GET /metrics`."""


def test_every_route_is_in_paths() -> None:
    """A new route is tested with each method, and has a counter."""
    routes = {
        route for source in ROUTES.rglob("*.rs") for route in re.findall(r'\.route\("([^"]+)"', source.read_text())
    }
    examples = {re.sub(r"\{\*\w+\}", "y", route).replace("{id}", "x") for route in routes - {"/echo"}}
    assert len(examples) > 10
    assert sorted(examples - set(PATHS)) == []


def test_every_path_has_counter() -> None:
    with SignalingServer(dashboard=True, proxy_device_files=True, adb=True) as server:
        for path in set(PATHS) - COUNTED_AS_OTHER:
            request(server, "BREW", path)
        metrics = request(server, "GET", "/metrics").body.decode()
    assert 'endpoint="/polled_connections"' in metrics
    assert 'endpoint="other"' not in metrics


def assert_is_error(path: str, method: str, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
    assert headers["content-type"] == "application/json", (method, path)
    if method == "HEAD":
        assert body == b""
        assert int(headers["content-length"]) > len('{"error":""}')
        return
    said = json.loads(body)
    assert isinstance(said.pop("error"), str)
    reference = path in ("/connect", "/forward", "/poll_messages")
    assert said == ({"type": "error"} if reference else {}), (method, path, status)


@pytest.mark.parametrize("path", PATHS)
def test_wrong_method_is_json_405(path: str) -> None:
    with SignalingServer(dashboard=True, proxy_device_files=True, adb=True) as server:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            if PATHS[path] == ("GET" if method == "HEAD" else method):
                continue
            status, headers, body = request(server, method, path)
            assert status == 405, (method, path)
            assert PATHS[path] in headers["allow"].split(","), (method, path)
            assert method not in headers["allow"].split(","), (method, path)
            assert_is_error(path, method, status, headers, body)


CACHED = {"/js/server_connector.js": "no-cache", "/dashboard/main.js": "no-cache", "/": "no-cache"}
"""Answers that a browser may keep: the server's own page and scripts, which are the same for all."""


def assert_has_common_headers(path: str, headers: http.client.HTTPMessage) -> None:
    assert headers.get_all("cache-control") == [CACHED.get(path, "no-store")], path
    assert headers.get_all("x-content-type-options") == ["nosniff"], path


@pytest.mark.parametrize("path", [*PATHS, "/", "/nowhere", "/%zz"])
def test_every_answer_has_common_headers(path: str) -> None:
    """No cache keeps an answer, no browser guesses its type, and HEAD promises no other length than GET."""
    with SignalingServer(dashboard=True, proxy_device_files=True) as server:
        for headers in ({}, {"Host": "evil.example"}, {"Origin": "https://evil.example"}):
            with open_response(server, PATHS.get(path, "GET"), path, b"{}", headers) as got:
                assert_has_common_headers(path if got.status == 200 else "", got.headers)
        with open_response(server, "HEAD", path) as head, open_response(server, "GET", path) as get:
            if head.status == 405:
                return
            assert head.status == get.status
            assert_has_common_headers(path if head.status == 200 else "", head.headers)
            if path != "/dashboard/events":
                assert head.headers.get("content-length", "none") in ("none", str(len(get.read())))


def test_turned_away_answer_has_common_headers() -> None:
    with SignalingServer(limits=Limits(max_connections=1)) as server, connect(server.device_url):
        answer = request(server, "GET", "/devices")
        assert answer.status == 503
        assert_has_common_headers("", answer.headers)


@pytest.mark.parametrize("path", ["/infra_config", "/connect", "/polled_connections/ID/messages"])
def test_credentials_and_messages_are_not_kept_by_caches(path: str) -> None:
    turn = TurnRest("turn:t", secret="s")
    with SignalingServer(ice_servers=turn) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        body = b'{"device_id":"cvd-1"}'
        connection = request(server, "POST", "/connect", body)
        path = path.replace("ID", connection.json["connection_id"])
        answer = request(server, "POST", path, body) if path == "/connect" else request(server, "GET", path)
        assert answer.status == 200
        assert_has_common_headers("", answer.headers)


def test_metrics_are_refused_to_limited_grant() -> None:
    """They are of all devices, and this peer must not find out about those of others."""
    tokens = StaticTokens({"s3cret": Grant("alice", devices=["alice-*"]), "all": "scraper"})
    with SignalingServer(authorize=tokens) as server:
        refused = request(server, "GET", "/metrics", Authorization="Bearer s3cret")
        assert (refused.status, refused.error) == (403, "Not authorized: the metrics are of all devices")
        assert request(server, "GET", "/metrics", Authorization="Bearer all").status == 200


@pytest.mark.parametrize("assets", [False, True])
def test_unknown_path_is_json_404(tmp_path: Path, assets: bool) -> None:
    with SignalingServer(assets_dir=tmp_path if assets else None) as server:
        for path in ("/nowhere", "/", "/devices/", "/devices/x/", "/polled_connections/x", "//", "/%00", "/%zz"):
            for method in ("GET", "HEAD", "POST"):
                status, headers, body = request(server, method, path)
                assert status == 404, (method, path)
                assert_is_error(path, method, status, headers, body)
        status, headers, body = request(server, "OPTIONS", "*")
        assert status == 404
        assert_is_error("*", "OPTIONS", status, headers, body)


def test_asset_errors_are_json(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("12345")
    with SignalingServer(assets_dir=tmp_path) as server:
        for method in ("POST", "DELETE"):
            status, headers, body = request(server, method, "/file.txt")
            assert (status, headers["allow"]) == (405, "GET,HEAD")
            assert_is_error("/file.txt", method, status, headers, body)
        status, headers, body = request(server, "GET", "/file.txt", Range="bytes=9-")
        assert (status, headers["content-range"]) == (416, "bytes */5")
        assert_is_error("/file.txt", "GET", status, headers, body)


def test_refusals_before_routing_use_reference_format() -> None:
    def never(ctx: Any) -> None:
        raise Refused("not you")

    with SignalingServer(authorize=never) as server:
        for path in ("/connect", "/forward", "/poll_messages"):
            assert request_json(server, path, {}) == (403, {"error": "not you", "type": "error"})
            status, headers, body = request(server, "POST", path, b"{}", Origin="http://elsewhere")
            assert status == 403
            assert_is_error(path, "POST", status, headers, body)
        assert request_json(server, "/polled_connections", {}) == (403, {"error": "not you"})


# Paths ---------------------------------------------------------------------------------------------------------------


def test_paths_are_matched_decoded() -> None:
    with polled_client() as (server, device, client):
        id_in_hex = "".join(f"%{ord(character):02x}" for character in client.id)
        for path in (
            f"{client.path}/%3Aforward",
            f"{client.path}/%3aforward",
            f"{client.path}/:%66orward",
            f"/polled%5Fconnections/{id_in_hex}/%3A%66%6F%72%77%61%72%64",
        ):
            assert request_json(server, path, {"payload": path}) == (200, "ok"), path
            assert device.receive()["payload"] == path
        send_forwards(device, 7)
        client.wait_pending(7)
        assert request_json(server, f"/polled%5Fconnections/{id_in_hex}/%6Dessages?start=%30")[0] == 200
        assert request_json(server, "/%64evices?format=%69ds") == (200, ["cvd-1"])
        assert request_json(server, "/devices/%63vd%2D1")[1]["device_id"] == "cvd-1"
        assert request_json(server, "/healt%68z") == (200, {"status": "ok"})
        body = {"connection_id": client.id, "payload": 1}
        assert request_json(server, "/%66orward", body)[0] == 200
        assert request_json(server, "/%66orward", {}) == (
            401,
            {"error": "Forward failed: No device associated to client", "type": "error"},
        )
        text = request(server, "GET", "/metrics")[2].decode()
        assert 'http_requests_total{endpoint="/polled_connections/{id}/:forward",status="2xx"} 4' in text


@pytest.mark.parametrize(
    ("path", "device_id"),
    [
        ("/devices/a%2Fb", "a/b"),
        ("/devices/a%252Fb", "a%2Fb"),
        ("/devices/%3F%23%25", "?#%"),
        ("/devices/%2E%2E", ".."),
    ],
)
def test_encoded_separator_stays_within_id(server: SignalingServer, peers: Peers, path: str, device_id: str) -> None:
    peers.device(device_id)
    assert request_json(server, path)[1]["device_id"] == device_id


def test_websocket_paths_are_matched_decoded(server: SignalingServer, peers: Peers) -> None:
    address = server.url.replace("http", "ws", 1)
    device = peers.connect(f"{address}/register%5Fdevice", origin=f"{server.url}")
    device.send({"message_type": "register", "device_id": "a"})
    assert device.receive()["message_type"] == "config"
    client = peers.connect(f"{address}/devices/%61/%63onnect")
    assert client.receive() == {"device_info": None}


def test_authorize_sees_decoded_path() -> None:
    """Another spelling of a path does not bypass a hook that checks the path."""

    def no_lists(ctx: Any) -> None:
        if ctx.path == "/devices":
            raise Refused("no lists")

    with SignalingServer(authorize=no_lists) as server:
        for path in ("/devices", "/%64evices", "/device%73"):
            assert request_json(server, path) == (403, {"error": "no lists"})
