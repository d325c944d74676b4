"""Results of hooks that users return by mistake, or in a form of their own."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cuttlefish_signaling import (
    HookResultError,
    IceContext,
    IceServer,
    IceServerDict,
    IceServersDict,
    Limits,
    SignalingServer,
    TurnRest,
)

from hook_kinds import as_async, both
from peers import peers_of

STUN = {"urls": ["stun:a"]}
TURN = {"urls": ["turn:t"], "username": "u", "credential": "c"}


def ice_of(source: Any) -> Any:
    """The servers that a device gets."""
    with SignalingServer(ice_servers=source) as server, peers_of(server) as peers:
        answer = peers.pending_device().receive()
        assert "ice_servers" in answer, server.hook_errors
        return answer["ice_servers"]


def failure_of(**settings: Any) -> BaseException:
    """The error of a hook that fails for a client, or for a device."""
    with SignalingServer(**settings) as server, peers_of(server) as peers:
        if "ice_servers" in settings:
            assert peers.pending_device().receive() == {"error": "Internal error"}
        else:
            peers.device("cvd-1", {"a": 1})
            client = peers.pending_client()
            client.receive()
            assert client.receive() == {"error": "Internal error"}
        (failure,) = server.hook_errors
        return failure.error


# filter_device_info ---------------------------------------------------------------------------------------------------


@both
def test_filter_that_edits_in_place_and_returns_none_fails(way: Any) -> None:
    def forget(info: Any, ctx: Any) -> None:
        info.pop("a")

    error = failure_of(filter_device_info=way(forget))
    assert isinstance(error, HookResultError)
    assert "returned None: a filter that edits the device info in place has to return it as well" in str(error)


def test_filter_that_finds_null_may_return_it() -> None:
    with SignalingServer(filter_device_info=lambda info, ctx: info) as server, peers_of(server) as peers:
        peers.device("cvd-1", None)
        client = peers.pending_client()
        client.receive()
        assert client.receive() == {"message_type": "device_info", "device_info": None}


@both
def test_result_that_is_too_large_tells_both_sizes(way: Any) -> None:
    """At the limit it is sent, and not a byte above it."""
    limits = Limits(max_message_size=1000)
    for size, fits in ((1000, True), (1001, False)):
        text = "x" * (size - 2)  # In quotes.
        hook = way(lambda info, ctx: text)  # noqa: B023
        if fits:
            with SignalingServer(filter_device_info=hook, limits=limits) as server, peers_of(server) as peers:
                peers.device()
                client = peers.pending_client()
                client.receive()
                assert client.receive()["device_info"] == text
        else:
            error = failure_of(filter_device_info=hook, limits=limits)
            assert isinstance(error, HookResultError)
            assert re.search(r"returned 1001 bytes of JSON, and limits\.max_message_size allows 1000", str(error))


def test_generator_as_result_is_told() -> None:
    error = failure_of(filter_device_info=lambda info, ctx: (key for key in info))
    assert isinstance(error, HookResultError)
    assert "returned a generator: use `return` for its result, not `yield`" in str(error)


# ice_servers ----------------------------------------------------------------------------------------------------------

FORMS: list[tuple[Any, Any]] = [
    (IceServer("stun:a"), [STUN]),
    ({"urls": "stun:a"}, [STUN]),
    ((IceServer("stun:a"), {"url": "STUN:a"}), [STUN, STUN]),
    ({"iceServers": [{"urls": "stun:a"}, {**TURN, "credentialType": "password", "expires": 7}]}, [STUN, TURN]),
    ({"v": {"iceServers": TURN}, "s": "ok"}, [TURN]),
    ({"ice_servers": [{**TURN, "url": "turn:t"}], "ttl": "86400", "password": "c"}, [TURN]),
    ([], []),
]


@pytest.mark.parametrize(("given", "sent"), FORMS)
def test_each_form_is_taken_as_setting_and_as_result(given: Any, sent: Any) -> None:
    assert ice_of(given) == ice_of(lambda ctx: given) == ice_of(as_async(lambda ctx: given)) == sent


def test_servers_may_be_yielded() -> None:
    def each(ctx: IceContext) -> Iterator[IceServer]:
        yield IceServer("stun:a")
        yield IceServer("stun:b")

    async def each_later(ctx: IceContext) -> AsyncIterator[IceServer]:
        yield IceServer("stun:a")
        yield IceServer("stun:b")

    assert ice_of(each) == ice_of(each_later) == [STUN, {"urls": ["stun:b"]}]


def test_endless_generators_end() -> None:
    def each(ctx: IceContext) -> Iterator[IceServer]:
        while True:
            yield IceServer("stun:a")

    async def each_later(ctx: IceContext) -> AsyncIterator[IceServer]:
        while True:
            yield IceServer("stun:a")

    for hook in (each, each_later):
        assert "ice_servers: has more than 4096 entries" in str(failure_of(ice_servers=hook))


@both
def test_ice_servers_that_no_device_takes_are_a_result_error_with_both_sizes(way: Any) -> None:
    servers = [IceServer(f"stun:{'x' * 1000}")] * 70
    error = failure_of(ice_servers=way(lambda ctx: servers))
    assert isinstance(error, HookResultError)
    assert re.search(r"the config message would be [0-9]{5} bytes long, and a device takes at most 65536", str(error))


def test_types_of_dictionaries_are_exported() -> None:
    one: IceServerDict = {"urls": "turn:t", "username": "u", "credential": "c", "credentialType": "password"}
    answer: IceServersDict = {"iceServers": [one]}
    assert ice_of(one) == ice_of(answer) == ice_of([one]) == [TURN]


def test_turn_urls_may_have_any_case() -> None:
    config = json.loads(TurnRest("TURN:t.lab?TRANSPORT=TCP", secret="s", stun=["Stun:s"]).config())
    assert [server["urls"] for server in config["ice_servers"]] == [["stun:s"], ["turn:t.lab?transport=tcp"]]


# The log --------------------------------------------------------------------------------------------------------------


@both
def test_log_line_has_the_exception_the_device_and_the_client(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> Any:
        raise KeyError("displays")

    with SignalingServer(filter_device_info=way(fail)) as server, peers_of(server) as peers:
        peers.device("cvd-7")
        client = peers.pending_client("cvd-7")
        port = client.socket.local_address[1]
        client.receive()
        assert client.receive() == {"error": "Internal error"}
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    who = f"client 127.0.0.1:{port} (device id 'cvd-7')"
    assert line == f"hook filter_device_info failed for {who}: KeyError: 'displays'"


def test_log_line_of_an_exception_without_text_has_its_type(caplog: pytest.LogCaptureFixture) -> None:
    def fail(ctx: Any) -> Any:
        raise ZeroDivisionError

    with SignalingServer(ice_servers=fail) as server, peers_of(server) as peers:
        device = peers.pending_device("cvd-7")
        port = device.socket.local_address[1]
        assert device.receive() == {"error": "Internal error"}
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line == f"hook ice_servers failed for device 127.0.0.1:{port} (device id 'cvd-7'): ZeroDivisionError"
