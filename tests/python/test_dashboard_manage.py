"""Requests of the dashboard that manage peers: disconnecting them, and exporting their payloads."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from test_dashboard_events import events, next_event

from cuttlefish_signaling import ConfigError, Grant, SignalingServer, StaticTokens
from cuttlefish_signaling.testing import Cassette

from http_requests import Response, request
from peers import Peers, peers_of, wait_until

MANAGES = {"admin": Grant("root", manage=True), "alices": Grant("alice", devices=["alice-*"], manage=True)}
OTHERS = {"plain": "bob", "limited": Grant("carol", devices=["alice-*"]), "none": Grant("dave", manage=False)}
TOKENS = StaticTokens({**MANAGES, **OTHERS})
NOT_GRANTED = (
    "Not authorized: it takes a Grant with manage=True, or, on a server without authorize, a browser on its machine"
)


def disconnect(server: SignalingServer, token: str | None = None, **query: Any) -> Response:
    return manage(server, "POST", "disconnect", token, **query)


def export(server: SignalingServer, token: str | None = None, **query: Any) -> Response:
    return manage(server, "GET", "cassette", token, **query)


def manage(server: SignalingServer, method: str, name: str, token: str | None, **query: Any) -> Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return request(server, method, f"/dashboard/{name}?{urlencode(query)}", headers=headers)


def registered(peers: Peers, *ids: str, token: str = "admin") -> list[Any]:
    return [peers.device(id, additional_headers={"Authorization": f"Bearer {token}"}) for id in ids]


def talk(peers: Peers) -> None:
    """A conversation of the device cvd-1 and its client, payloads of which have unusual text."""
    device = peers.device("cvd-1", {"n": [1.5, "two"]})
    client = peers.client("cvd-1")
    odd = '{ "n" : 1.10, "n":1e400, "s":"\\ud800 \\u00fc ü \u2028" }'
    for payload in ('{"type":"request-offer"}', odd, "[1,\n 2]"):
        client.socket.send('{"message_type":"forward","payload":' + payload + "}")
        device.receive()
    device.send({"message_type": "forward", "client_id": 1, "payload": {"type": "offer"}})
    device.send({"message_type": "forward", "client_id": 77, "payload": "to no client"})
    client.receive()
    device.receive()


# Disconnecting -------------------------------------------------------------------------------------------------------


def test_local_viewer_disconnects_without_authorize() -> None:
    with SignalingServer(dashboard=True) as server, peers_of(server) as peers:
        device = peers.device("cvd-1")
        one, two = peers.client("cvd-1"), peers.client("cvd-1")
        assert disconnect(server, device="cvd-1", client=1)[::2] == (200, b'"ok"')
        assert one.receive() == {"error": "Disconnected by the server's operator"}
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        # The other client and the device stay.
        assert [client.client_id for client in server.clients()] == [2]
        assert disconnect(server, device="cvd-1").status == 200
        assert device.receive()["error"] == "Disconnected by the server's operator"
        assert two.receive()["error"] == "Device disconnected"


def test_peers_that_are_not_there_are_404() -> None:
    with SignalingServer(dashboard=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        assert (disconnect(server, device="cvd-2").status, disconnect(server, device="cvd-2").error) == (
            404,
            "Device not found",
        )
        for client in (0, 1, 2**31 - 1):
            answer = disconnect(server, device="cvd-1", client=client)
            assert (answer.status, answer.error) == (404, "Client not found")
        assert len(server.devices()) == 1


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("", "The query needs a device: ?device=ID"),
        ("?device=", "The query needs a device: ?device=ID"),
        ("?device=cvd-1&device=cvd-2", "The query has a field twice"),
        ("?device=cvd-1&client=4294967296", "client must be a client id"),
        ("?device=cvd-1&client=-1", "client must be a client id"),
        ("?device=cvd-1&client=1x", "client must be a client id"),
        ("?device=cvd-1&client=", "client must be a client id"),
        ("?device=cvd-1&clinet=1", "The query may have device and client only"),
    ],
)
def test_query_that_is_not_understood_disconnects_nothing(query: str, error: str) -> None:
    with SignalingServer(dashboard=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        answer = request(server, "POST", f"/dashboard/disconnect{query}")
        assert (answer.status, answer.error) == (400, error)
        assert len(server.devices()) == 1


@pytest.mark.parametrize("token", OTHERS)
def test_token_without_manage_disconnects_and_exports_nothing(token: str) -> None:
    with SignalingServer(dashboard=True, journal=True, authorize=TOKENS) as server, peers_of(server) as peers:
        registered(peers, "alice-1")
        for answer in (disconnect(server, token, device="alice-1"), export(server, token, device="alice-1")):
            assert (answer.status, answer.error) == (403, NOT_GRANTED)
        assert [device.device_id for device in server.devices()] == ["alice-1"]
        assert server.stats().unauthorized == 2


def test_request_without_token_disconnects_and_exports_nothing() -> None:
    with SignalingServer(dashboard=True, journal=True, authorize=TOKENS) as server, peers_of(server) as peers:
        registered(peers, "alice-1")
        assert [disconnect(server, device="alice-1").status, export(server, device="alice-1").status] == [401, 401]
        assert len(server.devices()) == 1


def test_grant_of_some_devices_manages_these_only() -> None:
    """To all others the answers are those of devices that do not exist."""
    with SignalingServer(dashboard=True, journal=True, authorize=TOKENS) as server, peers_of(server) as peers:
        registered(peers, "alice-1", "bob-1")
        foreign = disconnect(server, "alices", device="bob-1"), export(server, "alices", device="bob-1")
        absent = disconnect(server, "alices", device="alice-9"), export(server, "alices", device="alice-9")
        assert [(answer.status, answer.body) for answer in foreign] == [
            (answer.status, answer.body) for answer in absent
        ]
        assert export(server, "alices", device="alice-1").status == 200
        assert disconnect(server, "alices", device="alice-1").status == 200
        wait_until(lambda: [device.device_id for device in server.devices()] == ["bob-1"])


def test_without_authorize_only_this_machine_manages() -> None:
    """A request that a proxy has passed on may come from anywhere."""
    with SignalingServer(dashboard=True, journal=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        for header in ("Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip"):
            for method, path in (("POST", "/dashboard/disconnect"), ("GET", "/dashboard/cassette")):
                answer = request(server, method, f"{path}?device=cvd-1", headers={header: "for=192.0.2.1"})
                assert (answer.status, answer.error) == (403, NOT_GRANTED), header
        assert len(server.devices()) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        # A page of another port of this machine, and a page that the settings list for signaling.
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://listed.example", "Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example"},
    ],
)
def test_pages_of_other_sites_disconnect_and_export_nothing(headers: dict[str, str]) -> None:
    with SignalingServer(dashboard=True, journal=True, allowed_origins=["https://listed.example"]) as server:
        with peers_of(server) as peers:
            peers.device("cvd-1")
            assert request(server, "POST", "/dashboard/disconnect?device=cvd-1", headers=headers).status == 403
            assert request(server, "GET", "/dashboard/cassette?device=cvd-1", headers=headers).status == 403
            assert len(server.devices()) == 1
            assert server.stats().foreign == 2


def test_own_page_disconnects() -> None:
    with SignalingServer(dashboard=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        assert request(server, "POST", "/dashboard/disconnect?device=cvd-1", headers=own).status == 200


def test_nothing_is_managed_without_dashboard() -> None:
    with SignalingServer(journal=True) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        assert disconnect(server, device="cvd-1").status == 404
        assert export(server, device="cvd-1").status == 404
        assert len(server.devices()) == 1


@pytest.mark.parametrize("token", [*MANAGES, *OTHERS])
def test_event_about_tells_whether_viewer_may_manage(token: str) -> None:
    with SignalingServer(dashboard=True, authorize=TOKENS) as server:
        with events(server, Authorization=f"Bearer {token}") as answer:
            next_event(answer)
            name, about = next_event(answer)
        assert (name, about["may_manage"]) == ("about", token in MANAGES)


def test_manage_must_be_bool() -> None:
    with pytest.raises(ConfigError, match=r"Grant.manage: must be True or False, got 'yes'"):
        Grant("alice", manage="yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Grant.exclusive: must be True or False, got 1"):
        Grant("alice", exclusive=1)  # type: ignore[arg-type]


# Payloads ------------------------------------------------------------------------------------------------------------


def test_export_is_the_cassette_that_python_records(tmp_path: Any) -> None:
    with SignalingServer(dashboard=True, journal=True) as server, peers_of(server) as peers:
        peers.device("cvd-2")
        talk(peers)
        answer = export(server, device="cvd-1")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
        assert answer.headers["content-disposition"] == 'attachment; filename="cassette.jsonl"'
        (tmp_path / "page.jsonl").write_bytes(answer.body)
        recorded = Cassette.record(server.journal, "cvd-1")
        loaded = Cassette.load(tmp_path / "page.jsonl")
        assert loaded == recorded
        recorded.save(tmp_path / "python.jsonl")
        assert answer.body == (tmp_path / "python.jsonl").read_bytes()
        assert [line.sender for line in loaded.lines] == ["client", "client", "client", "device"]


def test_payloads_are_exported_byte_for_byte() -> None:
    with SignalingServer(dashboard=True, journal=True) as server, peers_of(server) as peers:
        talk(peers)
        text = export(server, device="cvd-1").body.decode()
        odd = r'{ "n" : 1.10, "n":1e400, "s":"\ud800 \u00fc ü \u2028" }'
        whole = json.dumps(odd.replace(r"\u2028", "\u2028"), ensure_ascii=False).replace("\u2028", r"\u2028")
        assert text.split("\n") == [
            '{"cassette": 1, "device_id": "cvd-1", "device_info": {"n": [1.5, "two"]}}',
            '{"from": "client", "client": 1, "payload": {"type":"request-offer"}}',
            # A payload with line ends has one line, and its own text as a string.
            f'{{"from": "client", "client": 1, "payload": {odd}, "payload_text": {whole}}}',
            r'{"from": "client", "client": 1, "payload": [1,  2], "payload_text": "[1,\n 2]"}',
            '{"from": "device", "client": 1, "payload": {"type": "offer"}}',
            "",
        ]


def test_export_begins_at_the_last_registration() -> None:
    with SignalingServer(dashboard=True, journal=True) as server, peers_of(server) as peers:
        talk(peers)
        server.disconnect_device("cvd-1")
        wait_until(lambda: not server.devices())
        peers.device("cvd-1", "again")
        lines = export(server, device="cvd-1").body.decode().splitlines()
        assert [json.loads(line) for line in lines] == [{"cassette": 1, "device_id": "cvd-1", "device_info": "again"}]


def test_export_without_journal_or_registration_is_404() -> None:
    with SignalingServer(dashboard=True) as server:
        off = export(server, device="cvd-1")
        assert (off.status, off.error) == (404, "The journal is off: --journal (journal=True) turns it on")
    with SignalingServer(dashboard=True, journal=True) as server:
        none = export(server, device="cvd-1")
        assert none.status == 404
        assert none.error.startswith("The journal has no registration of this device")
        assert export(server, device="cvd-1", client=1).status == 400
