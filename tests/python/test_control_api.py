"""The control API: who may use it, its answers, and the errors of wrong requests (docs/control-api.md)."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from control_requests import TOKEN, Control, connection_to, controlled_server

from cuttlefish_signaling import Limits, SignalingServer, StaticTokens
from cuttlefish_signaling.errors import BindError, ConfigError

from http_requests import request
from peers import peers_of, wait_until

# Admission --------------------------------------------------------------------------------------------------------


def test_it_is_off_by_default() -> None:
    with SignalingServer() as server:
        assert (server.control_url, server.control_urls, server.control_token) == (None, [], None)
        assert request(server, "GET", "/control/v1").status == 404


def test_each_request_needs_the_token() -> None:
    with controlled_server(control_token=TOKEN) as (server, control):
        assert server.control_token == TOKEN
        assert control("GET", "")["api"] == 1
        for token, code in (
            (None, "token_missing"),
            (TOKEN + "x", "token_wrong"),
            (TOKEN[:-1], "token_wrong"),
            ("tökén" + "x" * 16, "token_missing"),  # No header has such a character; it is sent as bytes.
        ):
            headers = {} if token is None else {"Authorization": f"Bearer {token}".encode("utf-8")}  # noqa: UP012
            stranger = Control(control.url, None)
            for path in ("", "/openapi.json", "/devices", "/nowhere"):
                answer = stranger.answer("GET", path, headers=headers)  # type: ignore[arg-type]
                assert (answer.status, answer.json["code"]) == (401, code), (path, token)
                assert answer.headers["www-authenticate"] == "Bearer"
        stranger = Control(control.url, None)
        assert stranger.refusal("GET", "", headers={"Authorization": f"Basic {TOKEN}"})[:2] == (401, "token_missing")
        assert control("GET", "/stats")["incidents"]["unauthorized"] == 17


def test_the_scheme_of_the_token_has_any_case() -> None:
    with controlled_server(control_token=TOKEN) as (_, control):
        for scheme in ("bearer", "BEARER"):
            answer = Control(control.url, None).answer("GET", "", headers={"Authorization": f"{scheme} {TOKEN}"})
            assert answer.status == 200


def test_random_token_is_another_one_for_each_server() -> None:
    with controlled_server() as (first, control), controlled_server() as (second, _):
        assert first.control_token is not None
        assert len(first.control_token) >= 32
        assert first.control_token != second.control_token
        kept = first.control_token
        first.reload(device_wait_timeout=1.0)
        assert first.control_token == kept
        assert control.answer("GET", "").status == 200


def test_token_is_exchanged_by_reload() -> None:
    with controlled_server(control_token=TOKEN) as (server, control):
        assert server.reload(control_token="another-token-of-tests") == ["control_token"]
        assert control.refusal("GET", "")[:2] == (401, "token_wrong")
        assert Control(control.url, "another-token-of-tests")("GET", "")["api"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://127.0.0.1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Host": "evil.example"},
    ],
)
def test_page_is_refused(headers: dict[str, str]) -> None:
    """Also a page of an origin that may signal."""
    with controlled_server(allowed_origins=["*"]) as (_, control):
        for method in ("GET", "POST", "DELETE", "OPTIONS"):
            assert control.refusal(method, "/faults", headers=headers)[:2] == (403, "forbidden"), method
        assert control("GET", "/faults") == {"faults": []}
        assert control("GET", "/stats")["incidents"]["foreign"] == 4


def test_fetch_of_node_is_that_of_a_program() -> None:
    with controlled_server() as (_, control):
        assert control.answer("GET", "", headers={"Sec-Fetch-Mode": "cors"}).status == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_body_of_a_page_is_refused(kind: str) -> None:
    with controlled_server() as (_, control):
        refused = control.refusal("POST", "/faults", {"fault": "drop"}, {"Content-Type": kind})
        assert refused[:2] == (403, "forbidden")
        assert control("GET", "/faults") == {"faults": []}


def test_other_body_is_not_supported() -> None:
    with controlled_server() as (_, control):
        refused = control.refusal("POST", "/faults", {"fault": "drop"}, {"Content-Type": "application/xml"})
        assert refused[:2] == (415, "unsupported_media_type")
        answer = control.answer(
            "POST", "/faults", {"fault": "drop"}, {"Content-Type": "Application/JSON;charset=utf-8"}
        )
        assert answer.status == 201


def test_other_listeners_do_not_have_it() -> None:
    with controlled_server(metrics=["http://127.0.0.1:0"]) as (server, control):
        for url in (server.url, server.metrics_urls[0].removesuffix("/metrics")):
            assert Control(url, server.control_token).answer("GET", "").status == 404
        connection = connection_to(control.url)
        connection.request("GET", "/devices", headers={"Authorization": f"Bearer {server.control_token}"})
        answer = json.loads(connection.getresponse().read())
        assert (answer["code"], "/control/v1, and nothing else" in answer["error"]) == ("unknown_path", True)
        connection.close()


def test_authorize_is_not_asked() -> None:
    with controlled_server(authorize=StaticTokens(["of-peers"])) as (_, control):
        assert control("GET", "/devices") == {"devices": [], "next": None}
        assert Control(control.url, "of-peers").refusal("GET", "/devices")[:2] == (401, "token_wrong")


# Listeners -----------------------------------------------------------------------------------------------------------


def test_unix_socket_is_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with controlled_server(control_api=[f"unix:{path}"]) as (server, control):
        assert server.control_url == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert control("GET", "")["control"] == [f"unix:{path}"]
        assert Control(control.url, None).refusal("GET", "")[:2] == (401, "token_missing")
    assert not path.exists()
    with controlled_server(control_api=[f"unix:{path}?mode=0660"]):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_several_listeners(tmp_path: Path) -> None:
    with controlled_server(control_api=["http://127.0.0.1:0", f"unix:{tmp_path / 'c'}"]) as (server, _):
        first, second = server.control_urls
        assert server.control_url == first
        control = Control(second, server.control_token)
        assert control("GET", "")["control"] == [first, second]
        assert control("GET", "")["listeners"] == server.urls


@pytest.mark.parametrize("url", ["http://0.0.0.0:0", "http://[::]:0", "http://192.0.2.1:0"])
def test_plain_http_is_for_this_machine(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^control_api: http://.* sends the token in plain text to other machines"):
        SignalingServer(control_api=[url]).start()


def test_address_of_another_listener_is_refused() -> None:
    with SignalingServer() as busy:
        url = busy.url
        with pytest.raises(BindError, match=f"^control_api: cannot listen on {url}: Address already in use"):
            SignalingServer(control_api=[url]).start()
    with pytest.raises(ConfigError, match=f"^control_api: {url} of listen and {url} are one address"):
        SignalingServer(listen=[url], control_api=[url]).start()


@pytest.mark.parametrize("token", ["short", "x" * 513, "with a space in it", 'quote"in-the-token', "=" * 16, "ü" * 16])
def test_token_that_no_request_can_have_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="^control_token: must have a token of ") as raised:
        SignalingServer(control_token=token)
    assert token not in str(raised.value)


# Answers -------------------------------------------------------------------------------------------------------------


def test_about_tells_what_the_server_is() -> None:
    with controlled_server() as (server, control):
        about = control("GET", "")
        assert about["pid"] == os.getpid()
        assert (about["journal"], about["cluster"], about["node"]) == (True, False, None)
        assert about["max_wait"] == 60.0
        assert control.answer("GET", "/stats").headers["cuttlefish-instance"] == about["instance"]
        server.stop()
        server.start()
        assert server.control_url is not None
        assert Control(server.control_url, server.control_token)("GET", "")["instance"] != about["instance"]


def test_peers_are_listed_as_python_lists_them() -> None:
    with controlled_server(device_wait_timeout=None) as (server, control), peers_of(server) as peers:
        for number in (3, 1, 2):
            peers.device(f"cvd-{number}", {"n": number})
        peers.client("cvd-2")
        peers.pending_client("cvd-9")
        server.wait_for_client("cvd-9", waiting=True)
        found = control("GET", "/devices")
        assert found["next"] is None
        for row, device in zip(found["devices"], server.devices(), strict=True):
            assert (row["device_id"], row["address"], row["port"]) == (device.device_id, device.address, device.port)
            assert (row["since"], row["clients"], json.loads(row["info"])) == (
                device.since,
                device.clients,
                device.info,
            )
            assert control("GET", f"/devices/{row['device_id']}") == row
        [client] = control("GET", "/clients")["clients"]
        assert (client["device_id"], client["client_id"]) == ("cvd-2", server.clients()[0].client_id)
        assert control("GET", "/devices/cvd-2/clients") == {"clients": [client]}
        assert control("GET", "/devices/cvd-1/clients") == {"clients": []}
        assert [one["device_id"] for one in control("GET", "/waiting")["waiting"]] == ["cvd-9"]
        assert control("GET", "/nodes") == {"nodes": [], "address": None}
        stats = control("GET", "/stats")
        assert stats.pop("incidents") == {
            name: getattr(server.stats(), name) for name in control("GET", "/stats")["incidents"]
        }
        assert stats == {name: getattr(server.stats(), name) for name in stats}


def test_devices_come_in_pages() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        for number in range(5):
            peers.device(f"cvd-{number}")
        pages, after = [], ""
        while True:
            page = control("GET", f"/devices?limit=2&info=false{after}")
            pages.append([row["device_id"] for row in page["devices"]])
            assert all(row["info"] is None for row in page["devices"])
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        assert pages == [["cvd-0", "cvd-1"], ["cvd-2", "cvd-3"], ["cvd-4"]]


def test_page_ends_at_its_bytes() -> None:
    with controlled_server(limits=Limits(control_api_page=64 * 1024)) as (server, control), peers_of(server) as peers:
        for number in range(3):
            peers.device(f"cvd-{number}", {"long": "x" * 40_000})
        page = control("GET", "/devices")
        assert (len(page["devices"]), page["next"]) == (2, "cvd-1")
        found, after, pages = [], 0, 0
        while True:
            page = control("GET", f"/journal?after={after}")
            found += [entry["number"] for entry in page["entries"]]
            after, pages = page["next"], pages + 1
            if not page["more"]:
                break
        assert found == [entry.number for entry in server.journal.entries()]
        assert pages > 1


def test_peers_are_disconnected() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        peers.device("cvd/1")
        client = peers.client("cvd/1")
        assert control("DELETE", "/devices/cvd%2F1/clients/1") == {"disconnected": True}
        assert client.receive()["error"] == "Disconnected by the server's operator"
        assert client.wait_closed() is not None
        wait_until(lambda: not server.clients())
        assert control.refusal("DELETE", "/devices/cvd%2F1/clients/1")[:2] == (404, "not_found")
        assert control("DELETE", "/devices/cvd%2F1") == {"disconnected": True}
        wait_until(lambda: not server.devices())
        assert control.refusal("DELETE", "/devices/cvd%2F1")[:2] == (404, "not_found")
        assert control.refusal("GET", "/devices/cvd%2F1")[:2] == (404, "not_found")


def test_changes_wake_a_wait() -> None:
    with controlled_server() as (server, control), peers_of(server) as peers:
        seen = control("GET", "/changes")["changes"]
        assert control("GET", f"/changes?seen={seen}") == {"changes": seen}
        assert control("GET", f"/changes?seen={seen}&wait=0.01") == {"changes": seen}
        with control.begun("GET", f"/changes?seen={seen}&wait=60") as connection:
            peers.device("cvd-1")
            assert json.load(connection.getresponse())["changes"] > seen
