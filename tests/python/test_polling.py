"""Lists and polling by PROTOCOL.md 5.3, request by request: answers, errors, and how paths and queries are read."""

from __future__ import annotations

import http.client
import json
import os
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import Refused, SignalingServer

from peers import PATIENCE, Dialed, Packets, Peers, peers_of

UNKNOWN = {"error": "Error: Unknown connection ID", "type": "error"}


def ask(server: SignalingServer, path: str, body: Any = None, *, method: str | None = None) -> tuple[int, Any]:
    """Status and parsed body of a request; POST where it has a body. A body of bytes goes out as it is."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    status, _, text = request(server, method or ("GET" if data is None else "POST"), path, data)
    return status, json.loads(text) if text else None


def request(
    server: SignalingServer, method: str, path: str, data: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


class Polling:
    """A polled connection to `cvd-1`, by either dialect: both have the same connection ids."""

    def __init__(self, server: SignalingServer) -> None:
        self.server = server
        status, answer = ask(server, "/polled_connections", {"device_id": "cvd-1"})
        assert status == 200, answer
        self.id = answer["connection_id"]
        self.path = f"/polled_connections/{self.id}"

    def get(self, query: str = "") -> tuple[int, Any]:
        """`GET …/messages`: the payloads, or the error."""
        status, found = ask(self.server, f"{self.path}/messages?{query}")
        return status, [message["payload"] for message in found] if status == 200 else found["error"]

    def arrived(self, *payloads: Any) -> None:
        """Returns once these can be fetched, as the first. Fetches and acknowledges none."""
        messages = [f'{{"message_type":"device_msg","payload":{json.dumps(payload)}}}' for payload in payloads]
        expected = str(len(f"[{','.join(messages)}]"))
        while request(self.server, "HEAD", f"{self.path}/messages")[1]["content-length"] != expected:
            os.sched_yield()


def forwards(device: Dialed | Packets, *payloads: Any) -> None:
    for payload in payloads:
        device.says({"message_type": "forward", "client_id": 1, "payload": payload})


@contextmanager
def polling(**settings: Any) -> Iterator[tuple[SignalingServer, Dialed, Polling]]:
    with SignalingServer(**settings) as server, peers_of(server) as peers:
        yield server, peers.device(), Polling(server)


# Lists ---------------------------------------------------------------------------------------------------------------


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


# Today's polling -----------------------------------------------------------------------------------------------------


def test_a_later_start_acknowledges_and_an_earlier_one_is_gone() -> None:
    with polling() as (server, device, client):
        forwards(device, 0, 1, 2, 3, 4)
        client.arrived(0, 1, 2, 3, 4)
        assert client.get("start=0") == (200, [0, 1, 2, 3, 4])
        assert client.get("start=0&count=2") == (200, [0, 1]), "kept until it is acknowledged"
        assert client.get("start=2&count=1") == (200, [2])
        gone = "start=0: messages before 2 are gone, a later start has acknowledged them"
        assert client.get("start=0") == (410, gone)
        assert client.get("start=1&count=0") == (410, gone.replace("start=0", "start=1"))
        assert client.get("start=2") == (200, [2, 3, 4])
        assert client.get() == (200, [2, 3, 4]), "no start is the first that there is"
        assert client.get("start=3&count=0") == (200, []), (
            "no message is asked for, and those before 3 are acknowledged"
        )
        assert client.get("start=2")[0] == 410
        assert client.get("start=5") == (200, [])
        assert client.get("start=4")[0] == 410
        stats = server.stats()
        assert (stats.accepted, stats.delivered, stats.gone) == (5, 5, 0)


def test_a_start_past_the_end_gets_nothing_and_acknowledges_nothing() -> None:
    with polling() as (_, device, client):
        forwards(device, 0, 1)
        client.arrived(0, 1)
        for start in (3, 10**18, 10**30):
            assert client.get(f"start={start}") == (200, [])
            assert client.get(f"start={start}&wait=5") == (200, [])
        assert client.get("start=0") == (200, [0, 1])
        forwards(device, 2)
        assert client.get("start=2&wait=10") == (200, [2])


def test_messages_that_a_start_has_left_out_are_in_the_books() -> None:
    with polling() as (server, device, client):
        forwards(device, 0, 1, 2, 3, 4)
        client.arrived(0, 1, 2, 3, 4)
        assert client.get("start=0&count=2") == (200, [0, 1])
        assert client.get("start=4") == (200, [4])
        stats = server.stats()
        assert (stats.accepted, stats.delivered, stats.gone) == (5, 3, 2)


@pytest.mark.parametrize(
    "query", ["count=-1", "start=&count=", "start=&count=-1", "wait=", f"count={10**30}", "start=%30", "x=y"]
)
def test_queries_that_ask_for_everything(query: str) -> None:
    with polling() as (_, device, client):
        forwards(device, 7, 8)
        client.arrived(7, 8)
        assert client.get(query) == (200, [7, 8])


NO_NUMBERS = {
    "start": ["-1", "x", "1.0", "%2B1", "%201"],
    "count": ["-2", "--1", "all", "1e3"],
    "wait": ["-1", "nan", "x", "inf"],
}


@pytest.mark.parametrize("query", [f"{key}={value}" for key, values in NO_NUMBERS.items() for value in values])
def test_queries_that_are_no_numbers(query: str) -> None:
    with polling() as (_, device, client):
        forwards(device, 7)
        client.arrived(7)
        assert client.get(query) == (400, f"{query.split('=')[0]}: must be a number, 0 or more")
        assert client.get("wait=10") == (200, [7])


def test_head_fetches_and_acknowledges_nothing() -> None:
    with polling() as (server, device, client):
        forwards(device, 7, 8)
        client.arrived(7, 8)
        assert request(server, "HEAD", f"{client.path}/messages?start=1&wait=20")[2] == b""
        assert request(server, "HEAD", f"{client.path}/messages?start=2&wait=20")[0] == 200, "nor does it wait"
        assert server.stats().delivered == 0
        assert client.get("start=0") == (200, [7, 8])
        assert client.get("start=1") == (200, [8])
        assert request(server, "HEAD", f"{client.path}/messages?start=0")[0] == 410


def test_all_that_came_before_the_device_left_can_be_fetched_and_then_it_is_404() -> None:
    with polling() as (server, device, client):
        forwards(device, *range(5))
        device.leaves()
        found: list[Any] = []
        while len(found) < 5:
            status, payloads = client.get(f"start={len(found)}&count=2&wait=10")
            assert status == 200, payloads
            found += payloads
        assert found == [0, 1, 2, 3, 4]
        assert client.get("start=5&wait=10") == (404, "Device disconnected")
        assert client.get() == (404, "Device disconnected"), "all was fetched"
        assert client.get("start=9") == (404, "Device disconnected")
        assert ask(server, f"{client.path}/:forward", {"payload": 1}) == (404, {"error": "Device disconnected"})
        stats = server.stats()
        assert (stats.accepted, stats.delivered) == (5, 5)


def has_left(server: SignalingServer, client: Polling) -> None:
    """Returns once the connection knows that its device has left."""
    while ask(server, f"{client.path}/:forward", {"payload": 0}) != (404, {"error": "Device disconnected"}):
        os.sched_yield()


def test_a_poll_without_a_start_ends_when_all_was_fetched() -> None:
    with polling() as (server, device, client):
        forwards(device, 7)
        client.arrived(7)
        device.leaves()
        has_left(server, client)
        assert client.get() == (200, [7])
        assert client.get() == (404, "Device disconnected")


def test_a_start_past_the_end_takes_nothing_from_a_client_whose_device_has_left() -> None:
    with polling() as (server, device, client):
        forwards(device, 0, 1)
        client.arrived(0, 1)
        device.leaves()
        has_left(server, client)
        before = server.stats()
        for start in (2, 5):
            assert client.get(f"start={start}") == (404, "Device disconnected"), "nothing comes after the end"
        assert client.get("count=0") == (200, [])
        assert client.get("start=1") == (200, [1])
        assert client.get("start=2") == (404, "Device disconnected")
        stats = server.stats()
        assert (stats.delivered - before.delivered, stats.gone - before.gone) == (1, 1)


def test_an_answer_that_was_lost_can_be_asked_for_again_for_as_long_as_a_client_may_stay_away() -> None:
    with polling() as (server, device, client):
        forwards(device, 0, 1)
        client.arrived(0, 1)
        device.leaves()
        has_left(server, client)
        with server.clock.frozen() as clock:
            assert client.get("start=0") == (200, [0, 1])
            clock.advance(20)
            assert client.get("start=0") == (200, [0, 1])
            assert client.get("start=1") == (200, [1])
            assert client.get("start=0") == (404, "Device disconnected"), "acknowledged, and nothing is left to come"
            clock.advance(20)
            # Asking again does not keep it alive: it is forgotten, in a moment.
            while (answer := client.get("start=1")) == (200, [1]):
                os.sched_yield()
            assert answer == (404, "Unknown connection")


# The reference's polling ---------------------------------------------------------------------------------------------


def test_forward_is_answered_with_what_is_pending() -> None:
    with polling() as (server, device, client):
        forwards(device, {"type": "offer"}, None, 1.5)
        client.arrived({"type": "offer"}, None, 1.5)
        body = {"connection_id": client.id, "payload": "up"}
        assert ask(server, "/forward", body) == (200, [{"type": "offer"}, None, 1.5])
        assert device.hears() == {"message_type": "client_msg", "client_id": 1, "payload": "up"}
        assert ask(server, "/forward", body) == (200, []), "acknowledged as they went out"
        assert ask(server, "/poll_messages", {"connection_id": client.id}) == (200, [])
        assert client.get("start=2") == (
            410,
            "start=2: messages before 3 are gone, a later start has acknowledged them",
        )
        assert client.get("start=3") == (200, [])
        forwards(device, "next")
        assert client.get("start=3&wait=10") == (200, ["next"])
        assert ask(server, f"{client.path}/:forward", {"payload": "down"}) == (200, "ok"), "today's stays as it is"
        assert [device.hears()["payload"] for _ in range(2)] == ["up", "down"]
        stats = server.stats()
        assert (stats.accepted, stats.gone) == (4 + 3, 0)


def test_a_forward_that_is_refused_takes_no_messages() -> None:
    with polling() as (server, device, client):
        forwards(device, 7)
        client.arrived(7)
        for body, status in (
            ({"connection_id": client.id}, 400),
            ({"connection_id": client.id, "payload": "x" * 65_536}, 413),
            ({"connection_id": client.id, "payload": "x" * 300_000}, 413),
        ):
            assert ask(server, "/forward", body)[0] == status
        assert ask(server, "/poll_messages", {"connection_id": client.id}) == (200, [7])


def test_the_reference_hears_why_its_connection_is_over_behind_the_text_it_knows() -> None:
    with polling() as (server, device, client):
        forwards(device, 7)
        client.arrived(7)
        device.leaves()
        has_left(server, client)
        over = (401, {"error": "Error: Unknown connection ID: Device disconnected", "type": "error"})
        assert ask(server, "/forward", {"connection_id": client.id, "payload": 1}) == over
        assert ask(server, "/poll_messages", {"connection_id": client.id}) == (200, [7])
        assert ask(server, "/poll_messages", {"connection_id": client.id}) == over


def test_a_connection_that_was_not_polled_is_unknown_in_either_dialect() -> None:
    with polling() as (server, device, client), server.clock.frozen() as clock:
        clock.advance(40)
        assert device.hears() == {"message_type": "client_disconnected", "client_id": 1}
        assert client.get() == (404, "Unknown connection")
        for path in ("/forward", "/poll_messages"):
            assert ask(server, path, {"connection_id": client.id, "payload": 1}) == (401, UNKNOWN)


def test_the_texts_of_the_reference(server: SignalingServer) -> None:
    no_device = "No device associated to client"
    for path, body, status, text in (
        ("/connect", {"device_id": 'a"b'}, 404, "Connection failed: Device not found: 'a\"b'"),
        ("/connect", {}, 400, "Invalid connection request: Missing device id"),
        ("/forward", {"payload": 1}, 401, f"Forward failed: {no_device}"),
        ("/forward", {"connection_id": 7, "payload": 1}, 401, f"Forward failed: {no_device}"),
        ("/poll_messages", {}, 401, f"Poll failed: {no_device}"),
        ("/forward", {"connection_id": "x", "payload": 1}, 401, UNKNOWN["error"]),
        ("/poll_messages", {"connection_id": "x"}, 401, UNKNOWN["error"]),
        ("/forward", b"{", 400, "Received Invalid JSON"),
        ("/poll_messages", b"[]", 400, "Invalid message format"),
        ("/connect", b"x" * 300_000, 413, "Body too large: at most 262144 bytes"),
    ):
        assert ask(server, path, body) == (status, {"error": text, "type": "error"}), (path, body)


# Errors, on every path -----------------------------------------------------------------------------------------------

PATHS = {
    "/devices": "GET",
    "/devices/x": "GET",
    "/devices/x/connect": "GET",
    "/devices/x/files/y": "GET",
    "/infra_config": "GET",
    "/metrics": "GET",
    "/healthz": "GET",
    "/readyz": "GET",
    "/js/server_connector.js": "GET",
    "/dashboard/main.js": "GET",
    "/dashboard/events": "GET",
    "/polled_connections/x/messages": "GET",
    "/register_device": "GET",
    "/connect_client": "GET",
    "/polled_connections": "POST",
    "/polled_connections/x/:forward": "POST",
    "/connect": "POST",
    "/forward": "POST",
    "/poll_messages": "POST",
}


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
def test_a_wrong_method_is_told_in_json(path: str) -> None:
    with SignalingServer(dashboard=True, proxy_device_files=True) as server:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"):
            if PATHS[path] == ("GET" if method == "HEAD" else method):
                continue
            status, headers, body = request(server, method, path)
            assert status == 405, (method, path)
            assert_is_error(path, method, status, headers, body)


@pytest.mark.parametrize("assets", [False, True])
def test_what_is_not_there_is_told_in_json(tmp_path: Path, assets: bool) -> None:
    with SignalingServer(assets_dir=tmp_path if assets else None) as server:
        for path in ("/nowhere", "/", "/devices/", "/devices/x/", "/polled_connections/x", "//", "/%00", "/%zz"):
            for method in ("GET", "HEAD", "POST"):
                status, headers, body = request(server, method, path)
                assert status == 404, (method, path)
                assert_is_error(path, method, status, headers, body)
        status, headers, body = request(server, "OPTIONS", "*")
        assert status == 404
        assert_is_error("*", "OPTIONS", status, headers, body)


def test_a_file_of_the_directory_is_refused_in_json(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("12345")
    with SignalingServer(assets_dir=tmp_path) as server:
        for method in ("POST", "DELETE"):
            status, headers, body = request(server, method, "/file.txt")
            assert (status, headers["allow"]) == (405, "GET,HEAD")
            assert_is_error("/file.txt", method, status, headers, body)
        status, headers, body = request(server, "GET", "/file.txt", Range="bytes=9-")
        assert (status, headers["content-range"]) == (416, "bytes */5")
        assert_is_error("/file.txt", "GET", status, headers, body)


def test_refusals_before_the_routes_have_the_words_of_the_reference_too() -> None:
    def never(ctx: Any) -> None:
        raise Refused("not you")

    with SignalingServer(authorize=never) as server:
        for path in ("/connect", "/forward", "/poll_messages"):
            assert ask(server, path, {}) == (403, {"error": "not you", "type": "error"})
            status, headers, body = request(server, "POST", path, b"{}", Origin="http://elsewhere")
            assert status == 403
            assert_is_error(path, "POST", status, headers, body)
        assert ask(server, "/polled_connections", {}) == (403, {"error": "not you"})


# Paths ---------------------------------------------------------------------------------------------------------------


def test_paths_are_matched_decoded() -> None:
    with polling() as (server, device, client):
        id_in_hex = "".join(f"%{ord(character):02x}" for character in client.id)
        for path in (
            f"{client.path}/%3Aforward",
            f"{client.path}/%3aforward",
            f"{client.path}/:%66orward",
            f"/polled%5Fconnections/{id_in_hex}/%3A%66%6F%72%77%61%72%64",
        ):
            assert ask(server, path, {"payload": path}) == (200, "ok"), path
            assert device.hears()["payload"] == path
        forwards(device, 7)
        client.arrived(7)
        assert ask(server, f"/polled%5Fconnections/{id_in_hex}/%6Dessages?start=%30")[0] == 200
        assert ask(server, "/%64evices?format=%69ds") == (200, ["cvd-1"])
        assert ask(server, "/devices/%63vd%2D1")[1]["device_id"] == "cvd-1"
        assert ask(server, "/healt%68z") == (200, {"status": "ok"})
        body = {"connection_id": client.id, "payload": 1}
        assert ask(server, "/%66orward", body)[0] == 200
        assert ask(server, "/%66orward", {}) == (
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
def test_what_separates_is_decoded_within_an_id_only(
    server: SignalingServer, peers: Peers, path: str, device_id: str
) -> None:
    peers.device(device_id)
    assert ask(server, path)[1]["device_id"] == device_id


def test_a_websocket_path_is_matched_decoded_as_well(server: SignalingServer, peers: Peers) -> None:
    address = server.url.replace("http", "ws", 1)
    device = peers.dial(f"{address}/register%5Fdevice", origin=f"{server.url}")
    device.says({"message_type": "register", "device_id": "a"})
    assert device.hears()["message_type"] == "config"
    client = peers.dial(f"{address}/devices/%61/%63onnect")
    assert client.hears() == {"device_info": None}


def test_a_hook_sees_the_path_that_is_matched() -> None:
    """A hook that goes by the path is not walked around by another spelling of it."""

    def no_lists(ctx: Any) -> None:
        if ctx.path == "/devices":
            raise Refused("no lists")

    with SignalingServer(authorize=no_lists) as server:
        for path in ("/devices", "/%64evices", "/device%73"):
            assert ask(server, path) == (403, {"error": "no lists"})
