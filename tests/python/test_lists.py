"""`GET /devices` and the list of the page for people by docs/protocol.md 5.3: filters, groups, formats."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import SignalingServer

from peers import PATIENCE, Packets, Peers, peers_of
from polled import ask


def test_an_empty_filter_is_no_filter(server: SignalingServer, peers: Peers) -> None:
    peers.device("a", {"group_id": "lab"})
    peers.device("b")
    both = ["a", "b"]
    for query in ("groupId=", "owner=", "groupId=&owner=", "groupId=lab&groupId="):
        assert ask(server, f"/devices?format=ids&{query}") == (200, both), query
    assert ask(server, "/devices?format=ids&groupId=lab&owner=") == (200, ["a"])
    assert ask(server, "/devices?format=ids&groupId=default") == (200, [])
    assert ask(server, "/devices?format=ids&owner=alice") == (200, [])


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
def test_the_group_of_a_device_that_was_not_announced(
    server: SignalingServer, peers: Peers, info: Any, group: str
) -> None:
    peers.device("a", info)
    entry = {"device_id": "a", "group_name": group, "adb_port": 0}
    assert ask(server, "/devices") == (200, [entry])
    assert ask(server, "/devices/a") == (200, {**entry, "registration_info": info})
    assert [device.group_name for device in server.devices()] == [group]
    if group:
        assert ask(server, f"/devices?groupId={urllib.parse.quote(group)}") == (200, [entry])


def test_an_announced_group_comes_before_that_of_the_device_info(tmp_path: Path) -> None:
    control = tmp_path / "control"
    with SignalingServer(control_socket=control) as server, peers_of(server) as peers:
        announcer = Packets(control)
        for device_id, group in (("a", "announced"), ("b", "")):
            devices = [{"id": device_id, "name": "", "adb_port": 0}]
            announcer.says({"message_type": "pre-register", "group_name": group, "owner": "", "devices": devices})
            assert announcer.hears()[0]["status"] == "accepted"
            peers.device(device_id, {"group_id": "own"})
            assert announcer.hears()["status"] == "registered"
        groups = {entry["device_id"]: entry["group_name"] for entry in ask(server, "/devices")[1]}
        assert groups == {"a": "announced", "b": "own"}
        announcer.leaves()


def test_a_list_does_not_tell_a_group_that_a_hook_may_hide() -> None:
    """A list does not call the hook for each device: it shows announced groups, and nothing of device info."""
    groups = []

    def hide(info: Any, ctx: Any) -> Any:
        groups.append(ctx.group_name)
        return {key: value for key, value in info.items() if key != "group_id"}

    def rename(info: Any, ctx: Any) -> Any:
        return {**info, "group_id": "shown"}

    for hook, shown in ((hide, ""), (rename, "shown")):
        with SignalingServer(filter_device_info=hook) as server, peers_of(server) as peers:
            peers.device("a", {"group_id": "secret"})
            assert ask(server, "/devices")[1][0]["group_name"] == ""
            assert ask(server, "/devices?groupId=secret") == (200, [])
            assert ask(server, "/devices/a")[1]["group_name"] == shown, "what the hook has let through"
            assert server.devices()[0].group_name == "secret", "the server's owner sees all of it"
    assert groups == ["secret"]


def overview(server: SignalingServer, query: str) -> Any:
    """The first list of devices that the page for people is told."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request("GET", f"/dashboard/events?{query}")
        answer = connection.getresponse()
        while not (line := answer.readline()).startswith(b"data: "):
            pass
        return [(row["device_id"], row["group_name"]) for row in json.loads(line[len(b"data: ") :])["devices"]]
    finally:
        connection.close()


def test_the_page_for_people_has_the_same_groups() -> None:
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


def test_the_format_of_the_list_is_a_setting() -> None:
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
                assert ask(server, f"/devices{query}") == (200, listed), (settings, query)
            assert ask(server, "/devices/a")[1] == {**full[0], "registration_info": None}
