"""Hooks: their arguments, the use of their results, and their failures."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import pickle
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from cuttlefish_signaling import (
    AuthorizeContext,
    FilterContext,
    HookResultError,
    HookTimeoutError,
    IceContext,
    Limits,
    Peer,
    Refused,
    SignalingServer,
)

from hook_kinds import both
from peers import PATIENCE, assert_relays, peers_of, wait_until

# filter_device_info --------------------------------------------------------------------------------------------------


@both
def test_filter_is_called_for_each_client(way: Any) -> None:
    asked: list[FilterContext] = []

    def show_seat(info: Any, ctx: FilterContext) -> Any:
        asked.append(ctx)
        return {**info, "seat": ctx.client.query["seat"]}

    with SignalingServer(filter_device_info=way(show_seat)) as server, peers_of(server) as peers:
        peers.device("cvd-1", {"adb": 1})
        for seat in ("left", "right"):
            client = peers.pending_client("cvd-1", f"?seat={seat}", additional_headers={"X-Team": "lab"})
            client.receive()
            assert client.receive() == {"message_type": "device_info", "device_info": {"adb": 1, "seat": seat}}
        assert server.devices()[0].info == {"adb": 1}
    assert [ctx.device_id for ctx in asked] == ["cvd-1", "cvd-1"]
    assert asked[0].client.role == "client"
    assert asked[0].client.address == "127.0.0.1"
    assert asked[0].client.path == "/connect_client"
    assert asked[0].client.headers["x-team"] == asked[0].client.headers["X-Team"] == "lab"


def test_device_info_without_filter_is_byte_identical() -> None:
    with SignalingServer() as server, peers_of(server) as peers:
        device = peers.connect(server.device_url)
        device.socket.send('{"message_type":"register","device_id":"a","device_info":{"b": 0.10,"a":1E2}}')
        device.receive()
        client = peers.pending_client("a")
        client.receive()
        assert client.socket.recv() == '{"message_type":"device_info","device_info":{"b": 0.10,"a":1E2}}'


@both
@pytest.mark.parametrize(
    "info",
    ['{"b": 0.10,"a":1E2}', '{"x":1e999}', "1" * 5000, '{"a":1,"a":2}', "[-0.0, 1.0, 1]", '"\\u00e9"', "null"],
    ids=lambda info: info if len(info) < 40 else "5,000 digits",
)
def test_result_of_filter_that_changes_nothing_is_byte_identical(way: Any, info: str) -> None:
    with SignalingServer(filter_device_info=way(lambda info, ctx: info)) as server, peers_of(server) as peers:
        device = peers.connect(server.device_url)
        device.socket.send(f'{{"message_type":"register","device_id":"a","device_info":{info}}}')
        device.receive()
        client = peers.pending_client("a")
        client.receive()
        assert client.socket.recv() == f'{{"message_type":"device_info","device_info":{info}}}'


@pytest.mark.parametrize(("given", "result"), [("1", True), ("1", 1.0), ('{"a":1}', {}), ("[1,2]", [2, 1])])
def test_result_of_filter_that_equals_device_info_in_python_only_is_sent(given: str, result: Any) -> None:
    with SignalingServer(filter_device_info=lambda info, ctx: result) as server, peers_of(server) as peers:
        peers.device("a", json.loads(given))
        client = peers.pending_client("a")
        client.receive()
        sent = json.dumps(result, separators=(",", ":"))
        assert client.socket.recv() == f'{{"message_type":"device_info","device_info":{sent}}}'


@pytest.mark.parametrize("change", [{"seen": True}, {"x": 2}], ids=["a new member", "a new value"])
def test_filter_may_change_its_argument(change: dict[str, Any]) -> None:
    def show(info: Any, ctx: FilterContext) -> Any:
        info.update(change)
        return info

    with SignalingServer(filter_device_info=show) as server, peers_of(server) as peers:
        peers.device("a", {"x": 1})
        client = peers.pending_client("a")
        client.receive()
        assert client.receive()["device_info"] == {"x": 1, **change}


USES: list[Callable[[Peer], Peer]] = [
    copy.copy,
    copy.deepcopy,
    dataclasses.replace,
    lambda peer: pickle.loads(pickle.dumps(peer)),
    lambda peer: Peer(**{field.name: getattr(peer, field.name) for field in dataclasses.fields(peer)}),
]


def test_peer_that_is_used_after_the_call_has_all_fields() -> None:
    """The first use reads them from the call, also when the server has stopped."""
    kept: list[Peer] = []

    def keep(info: Any, ctx: FilterContext) -> Any:
        kept.append(ctx.client)
        return info

    with SignalingServer(authorize=lambda ctx: {"user": "ann"}, filter_device_info=keep) as server:
        with peers_of(server) as peers:
            peers.device()
            for _ in USES:
                peers.client()
    for use, peer in zip(USES, kept, strict=True):
        used = use(peer)
        assert used == peer
        assert repr(used) == repr(peer)
        assert (used.role, used.path, used.identity) == ("client", "/connect_client", {"user": "ann"})
        assert [*vars(used)] == [field.name for field in dataclasses.fields(Peer)]
        with pytest.raises(AttributeError, match="'Peer' object has no attribute 'rolle'"):
            peer.rolle  # type: ignore[attr-defined]  # noqa: B018


@both
def test_filter_may_refuse_client(way: Any) -> None:
    def refuse(info: Any, ctx: FilterContext) -> Any:
        raise Refused("this device is booked")

    with SignalingServer(filter_device_info=way(refuse)) as server, peers_of(server) as peers:
        peers.device()
        client = peers.pending_client()
        client.receive()
        assert client.receive() == {"error": "this device is booked"}
        assert client.wait_closed() == 1008
        assert server.hook_errors == []


# authorize -----------------------------------------------------------------------------------------------------------


@both
def test_authorize_sees_each_request_and_sets_identity(way: Any) -> None:
    asked: list[AuthorizeContext] = []

    def check(ctx: AuthorizeContext) -> Any:
        asked.append(ctx)
        return {"user": ctx.headers.get("X-User", "unknown")}

    seen: list[Any] = []

    def note(info: Any, ctx: FilterContext) -> Any:
        seen.append(ctx.client.identity)
        return info

    with SignalingServer(authorize=way(check), filter_device_info=note) as server, peers_of(server) as peers:
        peers.device(additional_headers={"X-User": "robot"})
        peers.client(additional_headers={"X-User": "ann"})
        urllib.request.urlopen(f"{server.url}/devices?format=ids", timeout=PATIENCE).close()
        assert server.devices()[0].identity == {"user": "robot"}
        assert server.clients()[0].identity == {"user": "ann"}
        assert seen == [{"user": "ann"}]
    assert [(ctx.role, ctx.path, ctx.query, ctx.address) for ctx in asked] == [
        ("device", "/register_device", {}, "127.0.0.1"),
        ("client", "/connect_client", {}, "127.0.0.1"),
        ("http", "/devices", {"format": "ids"}, "127.0.0.1"),
    ]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (Refused(), 403, "Not authorized"),
        (Refused('no "token"'), 403, 'no "token"'),
        (Refused("who?", status=401), 401, "who?"),
    ],
)
def test_authorize_refuses_before_upgrade(error: Refused, status: int, reason: str) -> None:
    def refuse(ctx: AuthorizeContext) -> None:
        raise error

    with SignalingServer(authorize=refuse) as server, peers_of(server) as peers:
        for url in (server.device_url, server.client_url):
            with pytest.raises(InvalidStatus) as refused:
                peers.connect(url)
            response = refused.value.response
            assert response.status_code == status
            assert json.loads(response.body or b"") == {"error": reason}
            assert ("www-authenticate" in response.headers) == (status == 401)
        with pytest.raises(urllib.error.HTTPError) as http:
            urllib.request.urlopen(f"{server.url}/devices", timeout=PATIENCE)
        assert http.value.code == status
        urllib.request.urlopen(f"{server.url}/healthz", timeout=PATIENCE).close()
        assert server.hook_errors == []


@pytest.mark.parametrize("answer", [True, False, object(), float("nan")])
def test_invalid_identity_refuses_connection(answer: Any) -> None:
    with SignalingServer(authorize=lambda ctx: answer) as server, peers_of(server) as peers:
        with pytest.raises(InvalidStatus) as refused:
            peers.connect(server.device_url)
        assert refused.value.response.status_code == 500
        (failure,) = server.hook_errors
        assert isinstance(failure.error, HookResultError)


# Failing -------------------------------------------------------------------------------------------------------------


@both
def test_hook_exception_closes_only_its_peer(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    def show(info: Any, ctx: FilterContext) -> Any:
        if ctx.client.query:
            raise KeyError("a bug in the user's hook")
        return info

    with SignalingServer(filter_device_info=way(show)) as server, peers_of(server) as peers:
        device, client = peers.device(), peers.client()
        unlucky = peers.pending_client("cvd-1", "?x=1")
        assert unlucky.receive()["message_type"] == "config"
        assert unlucky.receive() == {"error": "Internal error"}
        assert unlucky.wait_closed() == 1011
        assert_relays(client, device)
        peers.client()
        (failure,) = server.hook_errors
        assert (failure.hook, failure.device_id) == ("filter_device_info", "cvd-1")
        assert isinstance(failure.error, KeyError)
        assert failure.error.__traceback__ is not None
        assert server.stats().hook_failures == 1
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.name == "cuttlefish_signaling"
    assert record.exc_info is not None
    assert "a bug in the user's hook" in (record.exc_text or str(record.exc_info[1]))
    assert server.hook_errors == [failure]


@pytest.mark.parametrize("result", [object(), {1, 2}, float("inf")])
def test_unserializable_filter_result_is_hook_result_error(result: Any) -> None:
    with SignalingServer(filter_device_info=lambda info, ctx: result) as server, peers_of(server) as peers:
        peers.device()
        client = peers.pending_client()
        client.receive()
        assert client.receive() == {"error": "Internal error"}
        assert client.wait_closed() == 1011
        assert isinstance(server.hook_errors[0].error, HookResultError)


def wait_for_failure(server: SignalingServer, count: int = 1) -> None:
    """The event thread records a failure a moment after the peer has been answered."""
    wait_until(lambda: len(server.hook_errors) >= count)


@both
def test_hanging_hook_times_out(way: Any) -> None:
    release, cancelled = threading.Event(), threading.Event()

    def hang(info: Any, ctx: FilterContext) -> Any:
        release.wait(PATIENCE)

    async def hang_async(info: Any, ctx: FilterContext) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    hook = hang if way(hang) is hang else hang_async
    try:
        with SignalingServer(filter_device_info=hook, hook_timeout=0.2) as server, peers_of(server) as peers:
            device = peers.device()
            with server.clock.frozen() as clock:
                hung = [peers.pending_client() for _ in range(5)]
                # Pings are answered while the hook hangs.
                assert all(client.receive()["message_type"] == "config" for client in hung)
                assert hung[0].socket.ping().wait(PATIENCE)
                assert device.socket.ping().wait(PATIENCE)
                clock.advance(0.2)
            for client in hung:
                assert client.receive() == {"error": "Internal error"}
                assert client.wait_closed() == 1011
            wait_for_failure(server, 5)
            error = server.hook_errors[0].error
            assert isinstance(error, HookTimeoutError)
            assert "filter_device_info gave no answer" in str(error)
            assert "0.2 s" in str(error)
            if hook is hang_async:
                assert cancelled.wait(PATIENCE)
    finally:
        release.set()


def test_hanging_hooks_do_not_exceed_hook_threads() -> None:
    release, asked = threading.Event(), threading.Semaphore(0)
    before = set(threading.enumerate())  # Threads of other tests may still be ending.

    def ice(ctx: IceContext) -> Any:
        asked.release()
        release.wait(PATIENCE)
        return []

    try:
        with (
            SignalingServer(ice_servers=ice, hook_timeout=5, limits=Limits(hook_threads=2)) as server,
            server.clock.frozen() as clock,
            peers_of(server) as peers,
        ):
            for number in range(4):
                device = peers.pending_device(f"cvd-{number}")
                if number < 2:  # After that, no thread is free to call the hook.
                    assert asked.acquire(timeout=PATIENCE)
                assert device.socket.ping().wait(PATIENCE), "the timer of the hook has been set before the pong"
                clock.advance(5)
                assert device.receive() == {"error": "Internal error"}
            started = set(threading.enumerate()) - before
            assert sum(thread.name.startswith("cuttlefish-hook") for thread in started) == 2
    finally:
        release.set()


def test_established_pair_relays_while_other_hook_hangs() -> None:
    release = threading.Event()

    def show(info: Any, ctx: FilterContext) -> Any:
        if ctx.client.query:
            release.wait(PATIENCE)
        return info

    try:
        with SignalingServer(filter_device_info=show) as server, peers_of(server) as peers:
            device, client = peers.device(), peers.client()
            hung = peers.pending_client("cvd-1", "?hang")
            hung.send({"message_type": "forward", "payload": "later"})
            hung.receive()
            assert_relays(client, device)
            release.set()
            assert hung.receive()["message_type"] == "device_info"
            assert device.receive() == {"message_type": "client_msg", "client_id": 2, "payload": "later"}
    finally:
        release.set()
