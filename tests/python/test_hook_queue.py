"""Hooks that hang: the calls that find no free thread, and how the server tells that."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from test_metrics import scrape

from cuttlefish_signaling import HookTimeoutError, IceContext, Limits, SignalingServer

from peers import PATIENCE, WebSocketPeer, peers_of, wait_until

ADVICE = "A `def` hook keeps its thread until it returns: write a hook that may hang as `async def`"


class Hangs:
    """A hook for ICE servers that hangs for ids that begin with `stuck`, until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.stuck = threading.Semaphore(0)
        self.asked: list[str | None] = []

    def __call__(self, ctx: IceContext) -> list[Any]:
        self.asked.append(ctx.device_id)
        if (ctx.device_id or "").startswith("stuck"):
            self.stuck.release()
            self.release.wait(PATIENCE)
        return []


@pytest.fixture
def hook() -> Iterator[Hangs]:
    hook = Hangs()
    yield hook
    hook.release.set()


def assert_failed(device: WebSocketPeer) -> None:
    assert device.receive() == {"error": "Internal error"}
    assert device.wait_closed() == 1011


def ready(server: SignalingServer) -> tuple[int, Any]:
    """The status and the body of `/readyz`."""
    try:
        with urllib.request.urlopen(f"{server.url}/readyz", timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_call_without_a_free_thread_is_told_apart(hook: Hangs, caplog: pytest.LogCaptureFixture) -> None:
    """The error, the log, a counter and `/readyz` name the hook that keeps the threads."""
    limits = Limits(hook_threads=2)
    with SignalingServer(ice_servers=hook, limits=limits) as server, peers_of(server) as peers:
        with server.clock.frozen() as clock:
            stuck = [peers.pending_device(f"stuck-{number}") for number in range(2)]
            assert all(hook.stuck.acquire(timeout=PATIENCE) for _ in stuck)
            assert ready(server) == (200, {"status": "ready"}), "the calls may return in time"
            waiting = peers.pending_device("waiting")
            port = waiting.socket.socket.getsockname()[1]
            assert waiting.socket.ping().wait(PATIENCE)
            clock.advance(5)
            for device in (*stuck, waiting):
                assert_failed(device)
            wait_until(lambda: len(server.hook_errors) == 3)
        failures = {failure.device_id: failure.error for failure in server.hook_errors}
        assert all(isinstance(error, HookTimeoutError) for error in failures.values())
        text = str(failures["waiting"])
        assert text == (
            f"hook ice_servers was not called for 127.0.0.1:{port} within 5 s: no hook thread was free: "
            f"2 of 2 hook threads are in a call of ice_servers (2). {ADVICE}"
        )
        wait_until(lambda: text in caplog.text)
        assert "gave no answer" in str(failures["stuck-0"])
        assert sorted(map(str, hook.asked)) == ["stuck-0", "stuck-1"], "no thread has taken the call that was given up"
        assert (server.stats().hooks_not_called, server.stats().hook_failures) == (1, 3)
        assert scrape(server)['incidents_total{kind="hooks_not_called"}'] == 1
        busy = "No hook thread is free: 2 of 2 hook threads are in a call of ice_servers (2)"
        assert ready(server) == (503, {"error": f"{busy}, which did not return in time"})
        hook.release.set()
        wait_until(lambda: ready(server)[0] == 200)
        peers.device("later")


def test_calls_beyond_hook_queue_fail_at_once(hook: Hangs) -> None:
    limits = Limits(hook_threads=1, hook_queue=2)
    with SignalingServer(ice_servers=hook, limits=limits) as server, peers_of(server) as peers:
        peers.pending_device("stuck")
        assert hook.stuck.acquire(timeout=PATIENCE)
        waiting = [peers.pending_device(f"waiting-{number}") for number in range(2)]
        assert all(device.socket.ping().wait(PATIENCE) for device in waiting)
        assert_failed(peers.pending_device("one too many"))
        wait_until(lambda: server.hook_errors)
        (failure,) = server.hook_errors
        assert (failure.hook, failure.device_id) == ("ice_servers", "one too many")
        assert str(failure.error).endswith(
            ": the queue of hook calls is full (limits.hook_queue is 2); "
            f"1 of 1 hook threads are in a call of ice_servers (1). {ADVICE}"
        )
        assert server.stats().hooks_not_called == 1
        hook.release.set()
        assert [device.receive()["message_type"] for device in waiting] == ["config"] * 2


def test_calls_of_peers_that_left_make_room(hook: Hangs) -> None:
    """Ten times as many peers as there is room for come and go while the only thread hangs."""
    limits = Limits(hook_threads=1, hook_queue=2)
    with SignalingServer(ice_servers=hook, limits=limits) as server, peers_of(server) as peers:
        peers.pending_device("stuck")
        assert hook.stuck.acquire(timeout=PATIENCE)
        for number in range(20):
            device = peers.pending_device(f"leaves-{number}")
            assert device.socket.ping().wait(PATIENCE)
            device.close()
            wait_until(lambda: server.stats().connections == 1)
        assert server.stats().hooks_not_called == 0
        last = peers.pending_device("stays")
        assert last.socket.ping().wait(PATIENCE)
        hook.release.set()
        assert last.receive()["message_type"] == "config"
        assert hook.asked == ["stuck", "stays"]


def test_given_up_calls_fill_neither_queue_nor_memory(hook: Hangs) -> None:
    """Calls whose time is over leave the queue: it has room for each next one."""
    limits = Limits(hook_threads=1, hook_queue=1)
    with SignalingServer(ice_servers=hook, limits=limits) as server, peers_of(server) as peers:
        with server.clock.frozen() as clock:
            peers.pending_device("stuck")
            assert hook.stuck.acquire(timeout=PATIENCE)
            for number in range(5):
                device = peers.pending_device(f"late-{number}")
                assert device.socket.ping().wait(PATIENCE)
                clock.advance(5)
                assert_failed(device)
        wait_until(lambda: len(server.hook_errors) == 6)
        texts = [str(failure.error) for failure in server.hook_errors if failure.device_id != "stuck"]
        assert all("was not called" in text and "within 5 s" in text for text in texts)
        assert len(texts) == server.stats().hooks_not_called == 5


def test_stop_ends_waiting_calls(hook: Hangs) -> None:
    with SignalingServer(ice_servers=hook, limits=Limits(hook_threads=1)) as server, peers_of(server) as peers:
        peers.pending_device("stuck")
        assert hook.stuck.acquire(timeout=PATIENCE)
        waiting = peers.pending_device("waiting")
        assert waiting.socket.ping().wait(PATIENCE)
        server.stop()
        assert waiting.wait_closed() == 1001
        assert hook.asked == ["stuck"]
