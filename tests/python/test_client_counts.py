"""The numbers of clients of devices: `GET /devices?clients=true` and `GET /devices/{id}?clients=true`."""

from __future__ import annotations

from typing import Any

import pytest

from cuttlefish_signaling import AuthorizeContext, Grant, SignalingServer
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from http_requests import request_json
from peers import peers_of


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"device_id": name, "group_name": "", "adb_port": 0, **more}


def test_list_has_numbers_of_clients_where_they_are_asked_for() -> None:
    with SignalingServer() as server, FakeDevice(server, "a"), FakeDevice(server, "b"):
        assert request_json(server, "/devices?clients=true") == (200, [entry("a", clients=0), entry("b", clients=0)])
        with FakeClient(server, "b"), FakeClient(server, "b"):
            counted = [entry("a", clients=0), entry("b", clients=2)]
            assert request_json(server, "/devices?clients=true") == (200, counted)
            assert request_json(server, "/devices/b?clients=true")[1]["clients"] == 2
            for query in ("", "?clients=", "?clients=false", "?clients=1"):
                assert request_json(server, f"/devices{query}") == (200, [entry("a"), entry("b")]), query
                assert "clients" not in request_json(server, f"/devices/b{query}")[1], query
            assert request_json(server, "/devices?clients=true&format=ids") == (200, ["a", "b"])


def test_numbers_follow_the_clients() -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device = peers.device("a")
        polled = request_json(server, "/polled_connections", {"device_id": "a"})
        assert polled[0] == 200
        client = peers.pending_client("a")
        assert [client.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
        assert request_json(server, "/devices?clients=true")[1] == [entry("a", clients=2)]
        client.close()
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 2}
        assert request_json(server, "/devices?clients=true")[1] == [entry("a", clients=1)]


@pytest.mark.parametrize("query", ["clients=true", "clients=true&groupId=lab", "clients=true&owner=x"])
def test_grant_and_filters_select_what_is_counted(query: str) -> None:
    def by_team(ctx: AuthorizeContext) -> Grant | None:
        return Grant("red", devices=["red-*"]) if ctx.query.get("team") else None

    with SignalingServer(authorize=by_team) as server, FakeDevice(server, "red-1", info={"group_id": "lab"}):
        with FakeDevice(server, "blue-1"), FakeClient(server, "red-1"):
            red, blue = {**entry("red-1", clients=1), "group_name": "lab"}, entry("blue-1", clients=0)
            wanted = {"clients=true": [blue, red], "clients=true&groupId=lab": [red]}.get(query, [])
            assert request_json(server, f"/devices?{query}") == (200, wanted)
            of_team = [one for one in wanted if one is red]
            assert request_json(server, f"/devices?team=red&{query}") == (200, of_team)
