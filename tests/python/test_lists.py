"""`GET /devices` and the list of the dashboard by docs/protocol.md 5.3: filters, groups, formats."""

from __future__ import annotations

import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer

from http_requests import open_response, request_json
from peers import Peers, SeqpacketPeer, peers_of


def test_empty_filter_matches_all(server: SignalingServer, peers: Peers) -> None:
    peers.device("a", {"group_id": "lab"})
    peers.device("b")
    both = ["a", "b"]
    for query in ("groupId=", "owner=", "groupId=&owner=", "groupId=lab&groupId="):
        assert request_json(server, f"/devices?format=ids&{query}") == (200, both), query
    assert request_json(server, "/devices?format=ids&groupId=lab&owner=") == (200, ["a"])
    assert request_json(server, "/devices?format=ids&groupId=default") == (200, [])
    assert request_json(server, "/devices?format=ids&owner=alice") == (200, [])


@pytest.mark.parametrize(
    ("info", "group"),
    [
        (None, ""),
        ({"group_id": "lab"}, "lab"),
        ({"a": {"group_id": "not this one"}, "gr\u006fup_id": "\u00e9/\u2603"}, "\u00e9/\u2603"),
        ({"group_id": ""}, ""),
        ({"group_id": 7}, ""),
        ({"group_id": None}, ""),
        ({"group_id": ["lab"]}, ""),
        (["group_id", "lab"], ""),
        ("group_id", ""),
        ({"group_id": "x" * 256}, "x" * 256),
        ({"group_id": "x" * 257}, ""),
        ({"group_id": "two\nlines"}, ""),
        ({"group_id": "two\u2028lines"}, ""),
    ],
)
def test_group_is_read_from_device_info(server: SignalingServer, peers: Peers, info: Any, group: str) -> None:
    peers.device("a", info)
    entry = {"device_id": "a", "group_name": group, "adb_port": 0}
    assert request_json(server, "/devices") == (200, [entry])
    assert request_json(server, "/devices/a") == (200, {**entry, "registration_info": info})
    assert [device.group_name for device in server.devices()] == [group]
    if group:
        assert request_json(server, f"/devices?groupId={urllib.parse.quote(group)}") == (200, [entry])


def test_pre_registered_group_overrides_device_info(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with SignalingServer(control_socket=control) as server, peers_of(server) as peers:
        control_peer = SeqpacketPeer(control)
        for device_id, group in (("a", "pre-registered"), ("b", "")):
            devices = [{"id": device_id, "name": "", "adb_port": 0}]
            control_peer.send({"message_type": "pre-register", "group_name": group, "owner": "", "devices": devices})
            assert control_peer.receive()[0]["status"] == "accepted"
            peers.device(device_id, {"group_id": "own"})
            assert control_peer.receive()["status"] == "registered"
        groups = {entry["device_id"]: entry["group_name"] for entry in request_json(server, "/devices")[1]}
        assert groups == {"a": "pre-registered", "b": "own"}
        control_peer.close()


def test_listing_hides_group_when_filter_hook_is_set() -> None:
    """A listing does not call the hook for each device. It shows pre-registered groups, and nothing of device info."""
    groups = []

    def hide(info: Any, ctx: Any) -> Any:
        groups.append(ctx.group_name)
        return {key: value for key, value in info.items() if key != "group_id"}

    def rename(info: Any, ctx: Any) -> Any:
        return {**info, "group_id": "shown"}

    for hook, shown in ((hide, ""), (rename, "shown")):
        with SignalingServer(filter_device_info=hook) as server, peers_of(server) as peers:
            peers.device("a", {"group_id": "secret"})
            assert request_json(server, "/devices")[1][0]["group_name"] == ""
            assert request_json(server, "/devices?groupId=secret") == (200, [])
            assert request_json(server, "/devices/a")[1]["group_name"] == shown, "the result of the hook"
            assert server.devices()[0].group_name == "secret", "the Python API is not filtered"
    assert groups == ["secret"]


def overview(server: SignalingServer, query: str) -> Any:
    """The first list of devices on the event stream of the dashboard."""
    with open_response(server, "GET", f"/dashboard/events?{query}") as answer:
        while not (line := answer.readline()).startswith(b"data: "):
            pass
    return [(row["device_id"], row["group_name"]) for row in json.loads(line[len(b"data: ") :])["devices"]]


def test_dashboard_shows_same_groups() -> None:
    with SignalingServer(dashboard=True) as server, peers_of(server) as peers:
        peers.device("a", {"group_id": "Lab"})
        peers.device("b")
        assert overview(server, "") == [("a", "Lab"), ("b", "")]
        assert overview(server, "search=lab") == [("a", "Lab")]
    with SignalingServer(dashboard=True, filter_device_info=lambda info, ctx: None) as server:
        with peers_of(server) as peers:
            peers.device("a", {"group_id": "secret"})
            assert overview(server, "") == [("a", "")]
            assert overview(server, "search=secret") == []


def test_devices_format_sets_default_format() -> None:
    full = [{"device_id": "a", "group_name": "", "adb_port": 0}]
    for settings, default in (({}, full), ({"devices_format": "full"}, full), ({"devices_format": "ids"}, ["a"])):
        with SignalingServer(**settings) as server, peers_of(server) as peers:  # type: ignore[arg-type]
            peers.device("a")
            for query, listed in (
                ("", default),
                ("?format=", default),
                ("?format=other", default),
                ("?format=full", full),
                ("?format=ids", ["a"]),
                ("?format=ids&format=full", full),
            ):
                assert request_json(server, f"/devices{query}") == (200, listed), (settings, query)
            assert request_json(server, "/devices/a")[1] == {**full[0], "registration_info": None}
