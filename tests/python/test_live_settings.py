"""The hooks and ICE servers of a running server: their exchange, and attributes that look like it."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from cuttlefish_signaling import ConfigError, NotOursError, NotRunningError, Refused, SignalingServer
from cuttlefish_signaling._settings import KEYWORDS
from cuttlefish_signaling.testing import AttachedServer

from hook_kinds import both
from peers import PATIENCE, Peers, peers_of

HOOKS = ("authorize", "filter_device_info", "ice_servers")


def refuse(*_: Any) -> Any:
    raise Refused("no")


def shown(peers: Peers, query: str = "") -> Any:
    """The device info that a new client gets."""
    client = peers.pending_client("cvd-1", query)
    assert client.receive()["message_type"] == "config"
    return client.receive()


def info(value: Any) -> dict[str, Any]:
    return {"message_type": "device_info", "device_info": value}


# Attributes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", KEYWORDS, ids=lambda row: row.path)
def test_setting_is_no_attribute_to_set(row: Any) -> None:
    with SignalingServer() as server:
        with pytest.raises(AttributeError) as error:
            setattr(server, row.name, row.default)
        way = f"set_{row.name}(...)" if row.name in HOOKS else f"SignalingServer({row.name}=...)"
        assert way in str(error.value)
        assert server.is_running


def test_other_attributes_can_be_set_as_on_any_object() -> None:
    server: Any = SignalingServer()
    server.note = 1
    assert server.note == 1


def test_attached_server_exchanges_no_hooks() -> None:
    with SignalingServer() as server:
        attached: Any = AttachedServer(server.url)
        for name in HOOKS:
            with pytest.raises(NotOursError, match=f"^set_{name} is not available"):
                getattr(attached, f"set_{name}")(refuse)
            with pytest.raises(NotOursError, match=f"^{name} is not available"):
                setattr(attached, name, refuse)
        attached.host = "localhost"  # It is its own.


# filter_device_info ---------------------------------------------------------------------------------------------------


@both
def test_filter_is_set_exchanged_and_removed(way: Any) -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        peers.device("cvd-1", {"a": 1})
        assert shown(peers) == info({"a": 1})
        server.set_filter_device_info(way(lambda info, ctx: {**info, "b": 2}))
        assert shown(peers) == info({"a": 1, "b": 2})
        server.set_filter_device_info(way(lambda info, ctx: {"only": ctx.device_id}))
        assert shown(peers) == info({"only": "cvd-1"})
        server.set_filter_device_info(None)
        assert shown(peers) == info({"a": 1})
        assert server.hook_errors == []


@both
def test_call_under_way_ends_with_the_old_filter(way: Any) -> None:
    began, release = threading.Event(), threading.Event()

    def old(info: Any, ctx: Any) -> Any:
        began.set()
        assert release.wait(PATIENCE)
        return "old"

    try:
        with SignalingServer(filter_device_info=way(old)) as server, peers_of(server) as peers:
            peers.device()
            under_way = peers.pending_client()
            under_way.receive()
            assert began.wait(PATIENCE)
            server.set_filter_device_info(lambda info, ctx: "new")
            assert shown(peers) == info("new")
            release.set()
            assert under_way.receive() == info("old")
    finally:
        release.set()


def test_call_under_way_ends_with_a_filter_that_was_removed() -> None:
    began, release = threading.Event(), threading.Event()

    def old(info: Any, ctx: Any) -> Any:
        began.set()
        assert release.wait(PATIENCE)
        return "old"

    with SignalingServer(filter_device_info=old) as server, peers_of(server) as peers:
        peers.device("cvd-1", {"secret": 1})
        under_way = peers.pending_client()
        under_way.receive()
        assert began.wait(PATIENCE)
        server.set_filter_device_info(None)
        release.set()
        assert under_way.receive() == info("old")


def test_lists_hide_groups_of_device_info_while_there_is_a_filter() -> None:
    def groups() -> list[str]:
        with urllib.request.urlopen(f"{server.url}/devices", timeout=PATIENCE) as answer:
            return [device["group_name"] for device in json.load(answer)]

    with SignalingServer() as server, peers_of(server) as peers:
        peers.device("cvd-1", {"group_id": "secret"})
        assert groups() == ["secret"]
        server.set_filter_device_info(lambda info, ctx: None)
        assert groups() == [""], "the list that was rendered before is not used"
        server.set_filter_device_info(None)
        assert groups() == ["secret"]


# authorize ------------------------------------------------------------------------------------------------------------


@both
def test_authorize_is_set_exchanged_and_removed(way: Any) -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device = peers.device()
        server.set_authorize(way(refuse))
        with pytest.raises(InvalidStatus):
            peers.connect(server.client_url)
        assert device.socket.ping().wait(PATIENCE), "peers that are connected stay"
        server.set_authorize(way(lambda ctx: "ann"))
        peers.client()
        assert server.clients()[0].identity == "ann"
        server.set_authorize(None)
        peers.client()
        assert [client.identity for client in server.clients()] == ["ann", None]


def test_server_that_others_reach_keeps_its_authorize() -> None:
    with SignalingServer(host="0.0.0.0", authorize=refuse) as server:
        with pytest.raises(ConfigError, match=r"^authorize: cannot be None: host: 0\.0\.0\.0 can be reached"):
            server.set_authorize(None)
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server.url}/devices", timeout=PATIENCE)
    with SignalingServer(host="0.0.0.0", authorize=refuse, allow_unauthenticated=True) as server:
        server.set_authorize(None)
        urllib.request.urlopen(f"{server.url}/devices", timeout=PATIENCE).close()


# All of them ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOOKS)
def test_exchange_holds_for_the_next_start(name: str) -> None:
    asked: list[Any] = []

    def hook(*arguments: Any) -> Any:
        asked.append(arguments)
        return []

    server = SignalingServer()
    with server:
        getattr(server, f"set_{name}")(hook)
    with server, peers_of(server) as peers:
        peers.device()
        peers.client()
        assert asked


@pytest.mark.parametrize("name", HOOKS)
def test_exchange_needs_a_running_server_and_a_hook(name: str) -> None:
    server = SignalingServer()
    exchange: Callable[[Any], None] = getattr(server, f"set_{name}")
    with pytest.raises(NotRunningError):
        exchange(lambda *_: [])
    with server:
        with pytest.raises(ConfigError, match=f"^{name}: "):
            exchange(7)
        with pytest.raises(ConfigError, match=rf"^{name}: is called as {name}\("):
            exchange(lambda: None)


def test_hooks_are_exchanged_by_many_threads_while_peers_come() -> None:
    """Each peer gets the result of one of the hooks, and no call fails."""
    over = threading.Event()

    def exchange(number: int) -> None:
        while not over.is_set():
            server.set_filter_device_info(lambda info, ctx: number)
            server.set_authorize(lambda ctx: number)
            server.set_ice_servers(lambda ctx: [{"urls": f"stun:{number}"}])

    with SignalingServer() as server, peers_of(server) as peers:
        server.set_filter_device_info(lambda info, ctx: 0)
        peers.device()
        threads = [threading.Thread(target=exchange, args=(number,)) for number in (1, 2)]
        for thread in threads:
            thread.start()
        try:
            results = [shown(peers)["device_info"] for _ in range(20)]
        finally:
            over.set()
            with suppress(RuntimeError):
                for thread in threads:
                    thread.join(PATIENCE)
        assert set(results) <= {0, 1, 2}
        assert server.hook_errors == []
