"""Devices that one client has for itself: `Grant(exclusive=True)` and `one_client_per_device`."""

from __future__ import annotations

import threading
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuttlefish_signaling import AuthorizeContext, ConfigError, Grant, SignalingServer, StaticTokens
from cuttlefish_signaling.testing import FakeClient, FakeDevice

from client_kinds import CLIENTS, DEVICE_ID, INFO, both_sockets, register_local_device
from hook_kinds import both
from http_requests import request, request_json
from peers import Peers, peers_of

IN_USE = f"Connection failed: Device in use: '{DEVICE_ID}'"


def refused_in_messages(peers: Peers, query: str) -> None:
    client = peers.pending_client(DEVICE_ID, query)
    assert client.receive() == {"message_type": "config", "ice_servers": []}
    assert client.receive() == {"error": IN_USE}
    assert client.wait_close_frame() == (1013, IN_USE)


def refused_bare(peers: Peers, query: str) -> None:
    path = f"/devices/{urllib.parse.quote(DEVICE_ID, safe='')}/connect"
    client = peers.connect(f"{peers.server.url.replace('http', 'ws', 1)}{path}{query}")
    assert client.receive() == {"error": IN_USE}
    assert client.wait_close_frame() == (1013, IN_USE)


def refused_polling(peers: Peers, query: str) -> None:
    answer = request_json(peers.server, f"/polled_connections{query}", {"device_id": DEVICE_ID})
    assert answer == (409, {"error": IN_USE})


def refused_by_reference(peers: Peers, query: str) -> None:
    answer = request_json(peers.server, f"/connect{query}", {"device_id": DEVICE_ID})
    assert answer == (409, {"error": IN_USE, "type": "error"})


REFUSED: list[Callable[[Peers, str], None]] = [refused_in_messages, refused_bare, refused_polling, refused_by_reference]


def by_query(ctx: AuthorizeContext) -> Grant | None:
    return Grant("alone", exclusive=True) if ctx.query.get("alone") else None


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("kind", CLIENTS)
def test_one_client_per_device_is_refused_in_each_dialect_until_the_first_leaves(
    tmp_path: Path, kind: str, refused: Callable[[Peers, str], None]
) -> None:
    with both_sockets(tmp_path, one_client_per_device=True) as (server, peers, path):
        device = register_local_device(path)
        first = CLIENTS[kind](peers, DEVICE_ID)
        refused(peers, "")
        first.send("still there")
        assert device.receive()["payload"] == "still there"
        assert [found.clients for found in server.devices()] == [1]
        first.close()
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        CLIENTS[kind](peers, DEVICE_ID).send("next")
        assert device.receive() == {"message_type": "client_msg", "client_id": 2, "payload": "next"}


@both
@pytest.mark.parametrize("refused", REFUSED)
def test_grant_keeps_others_out_in_each_dialect(way: Any, refused: Callable[[Peers, str], None]) -> None:
    with SignalingServer(authorize=way(by_query)) as server, peers_of(server) as peers:
        device = peers.device(DEVICE_ID, INFO)
        alone = peers.pending_client(DEVICE_ID, "?alone=1")
        assert [alone.receive()["message_type"] for _ in range(2)] == ["config", "device_info"]
        for query in ("", "?alone=1"):
            refused(peers, query)
        alone.close()
        assert device.receive() == {"message_type": "client_disconnected", "client_id": 1}
        shared = CLIENTS["messages"](peers, DEVICE_ID)
        CLIENTS["long polling"](peers, DEVICE_ID)
        refused(peers, "?alone=1")
        shared.send("not touched")
        assert device.receive()["payload"] == "not touched"


@pytest.mark.parametrize("name", ["tokens", "tokens.toml", "tokens.json"])
def test_file_of_tokens_may_give_a_device_to_one_client(tmp_path: Path, name: str) -> None:
    files = {
        "tokens": "alone ci +exclusive cvd-*\nplain viewer\n",
        "tokens.toml": '[[tokens]]\ntoken = "alone"\nexclusive = true\n[[tokens]]\ntoken = "plain"\n',
        "tokens.json": '{"tokens": [{"token": "alone", "exclusive": true}, {"token": "plain"}]}',
    }
    (tmp_path / name).write_text(files[name])
    plain, alone = ({"Authorization": f"Bearer {token}"} for token in ("plain", "alone"))
    with (
        SignalingServer(authorize=StaticTokens.from_file(tmp_path / name)) as server,
        FakeDevice(server, headers=plain),
        FakeClient(server, headers=alone),
        pytest.raises(ConnectionError, match="Device in use: 'cvd-1'"),
        FakeClient(server, headers=plain),
    ):
        raise AssertionError("the second client was connected")


def test_of_many_polled_clients_at_once_one_is_connected() -> None:
    with SignalingServer(one_client_per_device=True, workers=2) as server, peers_of(server) as peers:
        peers.device()
        start, statuses = threading.Barrier(8), []

        def connect() -> None:
            start.wait()
            statuses.append(request_json(server, "/polled_connections", {"device_id": "cvd-1"})[0])

        threads = [threading.Thread(target=connect) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200] + [409] * 7
        assert server.devices()[0].clients == 1


def test_reload_counts_for_clients_that_connect_later() -> None:
    with SignalingServer() as server, FakeDevice(server), FakeClient(server) as first, FakeClient(server) as second:
        server.reload(one_client_per_device=True)
        with pytest.raises(ConnectionError, match="Device in use"), FakeClient(server):
            raise AssertionError("a third client was connected")
        second.close()
        first.send("there")


def test_proxy_gives_out_no_devices() -> None:
    with (
        SignalingServer() as behind,
        SignalingServer(upstream=behind.url, authorize=by_query) as proxy,
    ):
        answer = request(proxy, "GET", "/devices?alone=1")
        assert (answer.status, answer.json) == (
            403,
            {"error": "A proxy cannot keep other clients out: authorize has to grant shared use"},
        )
    with pytest.raises(ConfigError, match="one_client_per_device.*has no effect with upstream"):
        SignalingServer(upstream="http://127.0.0.1:1", one_client_per_device=True).start()
