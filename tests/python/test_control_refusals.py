"""Wrong requests to the control API, and its bounds (docs/control-api.md)."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest
from control_requests import connection_to, controlled_server

from cuttlefish_signaling import Limits

from http_requests import request
from peers import peers_of, wait_until

# Wrong requests ------------------------------------------------------------------------------------------------------

WRONG_QUERIES = [
    ("GET", "/devices?limit=0", "?limit"),
    ("GET", "/devices?limit=10001", "?limit"),
    ("GET", "/devices?limit=-1", "?limit"),
    ("GET", "/devices?limit=1&limit=2", "?limit"),
    ("GET", "/devices?info=yes", "?info"),
    ("GET", "/devices?device=x", "?device"),
    ("GET", "/journal?after=1.5", "?after"),
    ("GET", "/journal?after=18446744073709551616", "?after"),
    ("GET", "/journal?limit=10001", "?limit"),
    ("GET", "/journal?wait=nan", "?wait"),
    ("GET", "/journal?wait=-1", "?wait"),
    ("GET", "/journal?wait=1s", "?wait"),
    ("GET", "/journal?closed=1", "?closed"),
    ("GET", "/journal?direction=device", "?direction"),
    ("GET", "/journal?client=2147483648", "?client"),
    ("GET", "/journal?payload_type=x", "?payload_type"),
    ("GET", "/journal/transcript?format=html", "?format"),
    ("GET", "/changes?seen=x", "?seen"),
    ("GET", "/watch?messages=", "?messages"),
    ("GET", "/stats?x", "?x"),
    ("DELETE", "/devices/x/clients/y", "/client"),
    ("DELETE", "/faults/x", "/id"),
    ("POST", "/clock/freeze?x=1", "?x"),
    ("POST", "/clock/advance?seconds=1", "?"),
]


@pytest.mark.parametrize(("method", "path", "place"), WRONG_QUERIES)
def test_wrong_query_names_its_place(method: str, path: str, place: str) -> None:
    with controlled_server() as (_, control):
        body = {"seconds": 1} if "advance" in path else None
        assert control.refusal(method, path, body) == (400, "bad_request", place)


WRONG_BODIES: list[tuple[str, str, Any, str]] = [
    ("POST", "/faults", b"", "$"),
    ("POST", "/faults", b"{", "$"),
    ("POST", "/faults", b'{"fault":"drop"} x', "$"),
    ("POST", "/faults", b'{"fault":"drop","fault":"drop"}', "$"),
    ("POST", "/faults", b"\xff", "$"),
    ("POST", "/faults", [], "$"),
    ("PUT", "/faults/seed", [7], "$"),
    ("POST", "/journal/expect", {"steps": [["x"]]}, "$.steps[0]"),
    ("POST", "/faults", {}, "$.fault"),
    ("POST", "/faults", {"fault": "lose"}, "$.fault"),
    ("POST", "/faults", {"fault": 1}, "$.fault"),
    ("POST", "/faults", {"fault": "drop", "keep": 0.5}, "$.keep"),
    ("POST", "/faults", {"fault": "drop", "payload_type": "x"}, "$.payload_type"),
    ("POST", "/faults", {"fault": "truncate", "keep": 1.5}, "$.keep"),
    ("POST", "/faults", {"fault": "delay"}, "$.by"),
    ("POST", "/faults", {"fault": "delay", "by": -1}, "$.by"),
    ("POST", "/faults", {"fault": "delay", "by": 1e300}, "$.by"),
    ("POST", "/faults", {"fault": "delay", "by": "1"}, "$.by"),
    ("POST", "/faults", {"fault": "delay", "by": 1, "jitter": -1}, "$.jitter"),
    ("POST", "/faults", {"fault": "reorder", "window": 1}, "$.window"),
    ("POST", "/faults", {"fault": "reorder", "window": 1001}, "$.window"),
    ("POST", "/faults", {"fault": "bandwidth"}, "$.bytes_per_s"),
    ("POST", "/faults", {"fault": "bandwidth", "bytes_per_s": 0}, "$.bytes_per_s"),
    ("POST", "/faults", {"fault": "disconnect", "code": 1005}, "$.code"),
    ("POST", "/faults", {"fault": "disconnect", "code": 66546}, "$.code"),
    ("POST", "/faults", {"fault": "drop", "to": "server"}, "$.to"),
    ("POST", "/faults", {"fault": "drop", "client": 2**31}, "$.client"),
    ("POST", "/faults", {"fault": "drop", "nth": 0}, "$.nth"),
    ("POST", "/faults", {"fault": "drop", "times": 0}, "$.times"),
    ("POST", "/faults", {"fault": "drop", "probability": 2}, "$.probability"),
    ("PUT", "/faults/seed", {"seed": -1}, "$.seed"),
    ("PUT", "/faults/seed", {"seed": 2**64}, "$.seed"),
    ("PUT", "/faults/seed", {"seed": 1.5}, "$.seed"),
    ("PUT", "/faults/seed", {"seed": 2.0**64}, "$.seed"),
    ("POST", "/clock/advance", {"seconds": -1}, "$.seconds"),
    ("POST", "/clock/advance", {"seconds": None}, "$.seconds"),
    ("POST", "/clock/freeze", {}, "$"),
    ("POST", "/journal/expect", {"steps": []}, "$.steps"),
    ("POST", "/journal/expect", {"steps": [{}] * 101}, "$.steps"),
    ("POST", "/journal/expect", {"steps": [{}, {"client": "1"}]}, "$.steps[1].client"),
    ("POST", "/journal/expect", {"steps": [{}, {"client": 2**31}]}, "$.steps[1].client"),
    ("POST", "/journal/expect", {"steps": [{"direction": "up"}]}, "$.steps[0].direction"),
    ("POST", "/journal/expect", {"steps": [{"where": "x"}]}, "$.steps[0].where"),
    ("POST", "/journal/expect", {"steps": [{}], "wait": -1}, "$.wait"),
    ("PUT", "/ice_servers", {"ice_servers": [{"urls": "stun:a"}, {"urls": "http:b"}]}, "$.ice_servers[1].urls[0]"),
    ("PUT", "/ice_servers", {"ice_servers": 1}, "$.ice_servers"),
]


@pytest.mark.parametrize(("method", "path", "body", "place"), WRONG_BODIES)
def test_wrong_body_names_its_place(method: str, path: str, body: Any, place: str) -> None:
    with controlled_server() as (_, control):
        assert control.refusal(method, path, body) == (400, "bad_request", place)
        assert control("GET", "/faults") == {"faults": []}


def test_long_body_is_refused_from_its_head() -> None:
    with controlled_server(limits=Limits(control_api_body=2048)) as (_, control):
        assert control.refusal("POST", "/faults", b" " * 2049)[:2] == (413, "too_large")
        body = b'{"fault": "drop"}'.ljust(2048)
        assert control.answer("POST", "/faults", body).status == 201
        head = f"POST /control/v1/faults HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {control.token}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection(("127.0.0.1", int(control.url.rpartition(":")[2]))) as raw:
            raw.sendall(head.encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 413 ")


def test_unknown_paths_and_methods() -> None:
    with controlled_server() as (_, control):
        assert control.refusal("GET", "/nowhere")[:2] == (404, "unknown_path")
        connection = connection_to(control.url)
        connection.request("GET", "/control/v2/devices", headers={"Authorization": f"Bearer {control.token}"})
        assert json.load(connection.getresponse())["code"] == "unknown_version"
        connection.close()
        answer = control.answer("PATCH", "/faults")
        assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
        assert set(answer.headers["allow"].split(",")) == {"GET", "HEAD", "POST", "DELETE"}


def test_requests_at_once_are_bounded() -> None:
    """A wait and a stream each hold a place, and give it back."""
    with controlled_server(limits=Limits(max_control_api_requests=2)) as (server, control), peers_of(server) as peers:
        with control.opened("GET", "/watch") as stream:
            stream.readline()
            seen = control("GET", "/changes")["changes"]
            with control.begun("GET", f"/changes?seen={seen}&wait=60") as waits:
                wait_until(lambda: control.answer("GET", "").status == 503)
                answer = control.answer("GET", "")
                assert (answer.json["code"], answer.headers["retry-after"]) == ("busy", "1")
                peers.device("cvd-1")
                assert waits.getresponse().status == 200
            wait_until(lambda: control.answer("GET", "").status == 200)
        wait_until(lambda: control.answer("GET", "").status == 200)


def test_connections_are_bounded() -> None:
    with controlled_server(limits=Limits(max_control_api_connections=1)) as (server, control):
        connection = connection_to(control.url)
        connection.request("GET", "/control/v1", headers={"Authorization": f"Bearer {control.token}"})
        assert connection.getresponse().read()
        answer = control.answer("GET", "")
        assert (answer.status, answer.json["code"], answer.headers["connection"]) == (503, "busy", "close")
        assert request(server, "GET", "/healthz").status == 200
        connection.close()


def test_wait_is_cut_to_its_bound() -> None:
    with controlled_server(limits=Limits(control_api_wait=0.05)) as (_, control):
        seen = control("GET", "/changes")["changes"]
        assert control("GET", f"/changes?seen={seen}&wait=1e300") == {"changes": seen}
        assert control("GET", "")["max_wait"] == 0.05


def test_waits_and_streams_end_with_the_server() -> None:
    with controlled_server(limits=Limits(max_control_api_requests=3)) as (server, control):
        after = control("GET", "/changes")["changes"]
        with (
            control.opened("GET", "/watch") as stream,
            control.begun("GET", f"/changes?seen={after}&wait=60") as changes,
            control.begun("GET", "/journal?wait=60") as journal,
        ):
            stream.readline()
            # All three are under way.
            wait_until(lambda: control.answer("GET", "").status == 503)
            assert server.stop()
            for connection in (changes, journal):
                answer = connection.getresponse()
                assert (answer.status, json.load(answer)["code"]) == (503, "stopping")
            assert json.loads(stream.readlines()[-1]) == {"event": "stopping"}


def test_requests_are_counted_by_endpoint() -> None:
    with controlled_server() as (server, control):
        for path in ("", "/devices", "/devices/x/clients", "/faults", "/nowhere"):
            control.answer("GET", path)
        control.answer("DELETE", "/devices/x/clients/1")
        control.answer("DELETE", "/faults/9")
        control.answer("PUT", "/faults/seed", {"seed": 1})
        text = request(server, "GET", "/metrics").body.decode()
        for endpoint, status in (
            ("/control/v1", "2xx"),
            ("/control/v1/devices", "2xx"),
            ("/control/v1/devices/{id}/clients", "2xx"),
            ("/control/v1/devices/{id}/clients/{client}", "4xx"),
            ("/control/v1/faults", "2xx"),
            ("/control/v1/faults/{id}", "4xx"),
            ("/control/v1/faults/seed", "2xx"),
            ("other", "4xx"),
        ):
            assert f'http_requests_total{{endpoint="{endpoint}",status="{status}"}} 1' in text, endpoint


def test_pipelined_requests_share_a_connection() -> None:
    with controlled_server() as (_, control):
        connection = connection_to(control.url)
        for _ in range(3):
            connection.request("GET", "/control/v1/stats", headers={"Authorization": f"Bearer {control.token}"})
            response: http.client.HTTPResponse = connection.getresponse()
            assert response.status == 200
            response.read()
        connection.close()
