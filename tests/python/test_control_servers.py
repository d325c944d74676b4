"""The control API of servers with TLS, of proxies and of nodes of a cluster, and its routes as a whole."""

from __future__ import annotations

import http.client
import json
import re
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from control_requests import controlled_server

from cuttlefish_signaling import Cluster, SignalingServer, Tls
from cuttlefish_signaling.testing._engine import Engine, find_engine
from cuttlefish_signaling.testing._links import Links

from http_requests import request
from peers import PATIENCE, peers_of


def example(path: str) -> str:
    """A path of the document below /control/v1, with values in the place of its parameters."""
    path = path.removeprefix("/control/v1").replace("/faults/{id}", "/faults/9")
    return path.replace("{id}", "x").replace("{client}", "1")


def test_each_route_has_a_counter_and_refuses_other_methods() -> None:
    with controlled_server() as (server, control):
        paths: dict[str, Any] = control("GET", "/openapi.json")["paths"]
        for path, methods in paths.items():
            known = {method.upper() for method in methods} | ({"HEAD"} if "get" in methods else set())
            for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"} - known:
                answer = control.answer(method, example(path))
                assert (answer.status, answer.json["code"]) == (405, "method_not_allowed"), (method, path)
                assert set(answer.headers["allow"].split(",")) == known, (method, path)
                assert answer.headers["cache-control"] == "no-store"
                assert answer.headers["x-content-type-options"] == "nosniff"
        counted = re.findall(
            r'http_requests_total\{endpoint="([^"]+)"', request(server, "GET", "/metrics").body.decode()
        )
    assert {one for one in counted if one.startswith("/control")} == set(paths)
    assert "other" not in counted


def test_head_has_no_body() -> None:
    with controlled_server() as (_, control):
        answer = control.answer("HEAD", "/devices")
        assert (answer.status, answer.body) == (200, b"")


def test_https_has_the_certificate_of_the_server() -> None:
    tls = Tls.self_signed()
    with controlled_server(control_api=["https://127.0.0.1:0"], tls=tls) as (server, control):
        port = int(control.url.rpartition(":")[2])
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, context=tls.client_context())
        connection.request("GET", "/control/v1", headers={"Authorization": f"Bearer {server.control_token}"})
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)["control"]) == (200, [control.url])
        connection.close()


def test_headers_of_proxies_do_not_count() -> None:
    """The name of a request is that of its `Host`, whichever proxies are trusted."""
    with controlled_server(trusted_proxies=["127.0.0.1"]) as (_, control):
        assert control.refusal("GET", "", headers={"X-Forwarded-Host": "127.0.0.1", "Host": "evil.example"})[0] == 403
        assert control.answer("GET", "", headers={"X-Forwarded-Host": "evil.example"}).status == 200


def test_socket_that_listens_already_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with controlled_server(control_api=[url], sockets=[listening]) as (server, control):
            assert server.control_url == url
            assert control("GET", "")["control"] == [url]


def test_proxy_has_the_journal_of_its_peers() -> None:
    with SignalingServer() as upstream, controlled_server(upstream=upstream.url) as (proxy, control):
        with peers_of(proxy) as peers:
            peers.device("cvd-1")
            entries = control("GET", "/journal?message_type=register&wait=20")["entries"]
            assert [entry["device"] for entry in entries] == ["cvd-1"]
            fault = control("POST", "/faults", {"fault": "drop"})
            assert control("DELETE", f"/faults/{fault['id']}")["hits"] == 0


@pytest.mark.skipif(find_engine() is None, reason="redis-server is not installed")
def test_node_answers_for_its_cluster() -> None:
    with ExitStack() as stack:
        links = Links(dict)
        stack.callback(links.close)
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        engine = Engine(Path(directory), links.listen("engine"))
        engine.launch()
        stack.callback(engine.end)
        links.connect_to("engine", engine.socket)
        a, control = stack.enter_context(controlled_server(cluster=Cluster(engine.url, name="lab", node="a")))
        with control.opened("GET", "/watch?messages=false") as stream:
            b = stack.enter_context(SignalingServer(cluster=Cluster(engine.url, name="lab", node="b")))
            a.wait_for_nodes(2, timeout=PATIENCE)
            about = control("GET", "")
            assert (about["cluster"], about["node"]) == (True, "a")
            answer = control("GET", "/nodes")
            assert [(node["name"], node["state"]) for node in answer["nodes"]] == [("a", "this"), ("b", "alive")]
            assert answer["address"] == answer["nodes"][0]["address"]
            while True:
                line = json.loads(stream.readline())
                if line["event"] == "node" and line["node"]["name"] == "b":
                    break
        with peers_of(b) as peers:
            device = peers.device("cvd-1")
            peers.client("cvd-1")
            a.wait_for_device("cvd-1", timeout=PATIENCE)
            [row] = control("GET", "/devices")["devices"]
            assert (row["device_id"], row["node"], row["info"]) == ("cvd-1", "b", "null")
            assert control("GET", "/devices/cvd-1")["node"] == "b"
            assert control("DELETE", "/devices/cvd-1/clients/1") == {"disconnected": True}
            assert device.receive()["message_type"] == "client_disconnected"
            assert control.refusal("DELETE", "/devices/cvd-1/clients/7")[:2] == (404, "not_found")
            assert control("DELETE", "/devices/cvd-1") == {"disconnected": True}
            assert "operator" in device.receive()["error"]
