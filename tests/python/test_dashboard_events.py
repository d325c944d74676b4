"""The events of the dashboard, without a browser."""

from __future__ import annotations

import http.client
import json
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from test_metrics import INCIDENTS

from cuttlefish_signaling import Grant, Limits, Refused, SignalingServer, StaticTokens, TurnRest

from http_requests import open_response, request
from peers import peers_of, wait_until


def events(
    server: SignalingServer, query: str = "", **headers: str
) -> AbstractContextManager[http.client.HTTPResponse]:
    """The response to a page that opens the event stream."""
    return open_response(server, "GET", f"/dashboard/events{query}", headers=headers)


def next_event(answer: Any) -> tuple[str, Any]:
    name = answer.readline().decode().removeprefix("event: ").strip()
    data = json.loads(answer.readline().decode().removeprefix("data: "))
    assert answer.readline() == b"\n"
    return name, data


def may_watch(server: SignalingServer) -> bool:
    """Opens an event stream, and reads its first event."""
    with events(server) as answer:
        return answer.status == 200 and next_event(answer)[0] == "overview"


def test_viewers_are_limited_by_max_viewers() -> None:
    with SignalingServer(dashboard=True, limits=Limits(max_viewers=2)) as server:
        with events(server) as one:
            assert next_event(one)[0] == "overview"
            with events(server) as two:
                assert next_event(two)[0] == "overview"
                with events(server) as three:
                    assert (three.status, json.load(three)) == (503, {"error": "Too many viewers"})
                assert server.stats().turned_away == 1
            # A place is free when the server has noticed the disconnect, which takes two updates.
            wait_until(lambda: may_watch(server))


def test_open_event_stream_does_not_delay_stop() -> None:
    with SignalingServer(dashboard=True) as server, events(server) as answer:
        assert [next_event(answer)[0], next_event(answer)[0]] == ["overview", "about"]
        assert server.stop()
        assert answer.read() == b""


def test_event_stream_follows_query() -> None:
    with SignalingServer(dashboard=True, journal=True) as server:
        with events(server, "?search=%FF&device=%FF&device=cvd-1&x=y") as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["cache-control"] == "no-store"
            name, overview = next_event(answer)
            assert (name, overview["matching"], overview["server"]["journal"]) == ("overview", 0, True)
            name, device = next_event(answer)
            nothing: dict[str, Any] = {
                "device_id": "cvd-1",
                "since": None,
                "address": None,
                "client_count": 0,
                "clients": [],
            }
            assert (name, device) == ("device", nothing)
            name, about = next_event(answer)
            assert name == "about"
            assert about == {"may_manage": True, "ice_source": "none", "ice_urls": [], "device_socket": None}


def test_limited_grant_sees_no_numbers_of_others() -> None:
    tokens = StaticTokens({"s3cret": Grant("alice", devices=["alice-*"]), "all": "operator"})
    bearer = {"Authorization": "Bearer all"}
    with SignalingServer(dashboard=True, authorize=tokens) as server, peers_of(server) as peers:
        for device in ("alice-1", "bob-1"):
            peers.device(device, additional_headers=bearer)
        seen = {}
        for token in ("s3cret", "all"):
            with events(server, Authorization=f"Bearer {token}") as answer:
                _, overview = next_event(answer)
                seen[token] = overview["server"]
        assert (seen["all"]["devices"], seen["all"]["connections"], seen["all"]["incidents"]) == (2, 2, {})
        limited = {"version", "started", "journal", "devices", "clients", "waiting"}
        assert set(seen["s3cret"]) == limited < set(seen["all"])
        assert seen["s3cret"]["devices"] == 1


def test_events_have_no_payload() -> None:
    with SignalingServer(dashboard=True, journal=True) as server, peers_of(server) as peers:
        device = peers.device("cvd-1", {"info": "CANARY"})
        client = peers.client("cvd-1")
        client.send({"message_type": "forward", "payload": {"type": "offer", "sdp": "CANARY"}})
        device.receive()
        device.send({"message_type": "forward", "client_id": 1, "payload": {"type": "error", "error": "CANARY"}})
        client.receive()
        with events(server, "?device=cvd-1") as answer:
            text = ""
            while "event: entries" not in text or not text.endswith("\n\n"):
                text += answer.read(1).decode()
        assert '"payload_type":"offer"' in text
        assert "CANARY" not in text


def test_events_have_no_credentials() -> None:
    """URLs of ICE servers are told, of the settings and of each `config` in the journal."""
    turn = TurnRest("turn:turn.lab:3478", secret="CANARY", name="u5er")
    with SignalingServer(dashboard=True, journal=True, ice_servers=turn) as server, peers_of(server) as peers:
        peers.device("cvd-1")
        peers.client("cvd-1")
        text = ""
        with events(server, "?device=cvd-1") as answer:
            while "event: about" not in text or not text.endswith("\n\n"):
                text += answer.read(1).decode()
        said = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        assert said[-1]["ice_urls"] == ["turn:turn.lab:3478"]
        configs = [entry["ice"] for entry in said[-2]["entries"] if entry["message_type"] == "config"]
        assert configs == [["turn:turn.lab:3478"]] * 2
        for secret in ("CANARY", "u5er", "credential", "username"):
            assert secret not in text


def test_event_stream_checks_authorize_and_origin() -> None:
    def authorize(context: Any) -> None:
        raise Refused("not you")

    with SignalingServer(dashboard=True, authorize=authorize) as server:
        with events(server) as answer:
            assert (answer.status, json.load(answer)) == (403, {"error": "not you"})
        with events(server, Origin="https://elsewhere.example") as answer:
            said = "Origin not allowed: https://elsewhere.example; --allow-origin admits it"
            assert (answer.status, json.load(answer)["error"]) == (403, said)
        for mode in ("no-cors", "navigate"):
            with events(server, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}) as answer:
                said = "Pages of other sites are not allowed; --allow-origin admits one, for requests with an Origin"
                assert (answer.status, json.load(answer)["error"]) == (403, said)


def test_content_security_policy_is_strict() -> None:
    with SignalingServer(dashboard=True) as server:
        answer = request(server, "GET", "/")
        policy = answer.headers["content-security-policy"]
        assert answer.status == 200
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "require-trusted-types-for 'script'" in policy
        body = answer.body.decode()
        assert "http://" not in body
        assert "https://" not in body


def test_page_describes_each_incident() -> None:
    health = (Path(__file__).parents[2] / "web" / "dashboard" / "health.js").read_text(encoding="utf-8")
    known = re.findall(r"^  (\w+): '", health, re.MULTILINE)
    assert tuple(known) == INCIDENTS
