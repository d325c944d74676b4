"""The threads and event loops in which hooks run."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
from typing import Any

import pytest

from cuttlefish_signaling import (
    FilterContext,
    HookError,
    HookTimeoutError,
    IceContext,
    Limits,
    SignalingServer,
    Tls,
    UnsupportedError,
)

from hook_kinds import both
from peers import PATIENCE, peers_of, wait_until


def test_async_hook_runs_on_loop_that_started_server() -> None:
    loops: list[Any] = []

    async def ice(ctx: IceContext) -> list[Any]:
        loops.append(asyncio.get_running_loop())
        return []

    async def main() -> None:
        from websockets.asyncio.client import connect

        async with SignalingServer(ice_servers=ice) as server, connect(server.device_url) as device:
            await device.send('{"message_type":"register","device_id":"cvd-1"}')
            assert json.loads(await device.recv())["ice_servers"] == []
            assert loops == [asyncio.get_running_loop()]

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_async_hook_without_loop_runs_on_hook_loop() -> None:
    threads: list[str] = []

    async def ice(ctx: IceContext) -> list[Any]:
        threads.append(threading.current_thread().name)
        return []

    with SignalingServer(ice_servers=ice) as server, peers_of(server) as peers:
        peers.device("a")
        peers.device("b")
    assert threads == ["cuttlefish-hook-loop"] * 2


def test_async_hooks_run_concurrently() -> None:
    """With one hook thread: a coroutine that waits does not block it."""
    arrived: list[IceContext] = []
    all_arrived = asyncio.Event()

    async def ice(ctx: IceContext) -> list[Any]:
        arrived.append(ctx)
        if len(arrived) == 20:
            all_arrived.set()
        await all_arrived.wait()
        return []

    limits = Limits(hook_threads=1)
    with SignalingServer(ice_servers=ice, limits=limits) as server, peers_of(server) as peers:
        devices = [peers.connect(server.device_url) for _ in range(20)]
        for number, device in enumerate(devices):
            device.send({"message_type": "register", "device_id": f"cvd-{number}"})
        for device in devices:
            assert device.receive()["message_type"] == "config"


def test_hooks_over_tls() -> None:
    with (
        SignalingServer(
            tls=Tls.self_signed(), authorize=lambda ctx: "me", filter_device_info=lambda i, c: c.client.identity
        ) as server,
        peers_of(server) as peers,
    ):
        peers.device()
        client = peers.pending_client()
        client.receive()
        assert client.receive() == {"message_type": "device_info", "device_info": "me"}


def test_hook_may_stop_server() -> None:
    def stop(ctx: IceContext) -> Any:
        server.stop()
        return []

    server = SignalingServer(ice_servers=stop).start()
    with peers_of(server) as peers:
        device = peers.pending_device()
        assert device.wait_closed() == 1001
    assert not server.is_running


@both
def test_hook_that_raises_cancelled_error_is_a_failure(way: Any, caplog: pytest.LogCaptureFixture) -> None:
    def ice(ctx: IceContext) -> Any:
        raise asyncio.CancelledError("mine")

    with SignalingServer(ice_servers=way(ice)) as server, peers_of(server) as peers:
        assert peers.pending_device().receive() == {"error": "Internal error"}
        wait_until(lambda: server.hook_errors)
        (failure,) = server.hook_errors
        assert isinstance(failure.error, HookError | asyncio.CancelledError)
        assert (failure.hook, failure.device_id, server.stats().hook_failures) == ("ice_servers", "cvd-1", 1)
        wait_until(lambda: "CancelledError" in caplog.text)


@both
def test_hook_that_raises_system_exit_ends_no_loop(way: Any) -> None:
    def ice(ctx: IceContext) -> Any:
        if ctx.device_id == "exits":
            raise SystemExit(3)
        return []

    with SignalingServer(ice_servers=way(ice)) as server, peers_of(server) as peers:
        for _ in range(2):
            assert peers.pending_device("exits").receive() == {"error": "Internal error"}
            peers.device("other").close()
        wait_until(lambda: len(server.hook_errors) == 2)
        assert all("SystemExit" in repr(failure.error) for failure in server.hook_errors)


def test_coroutine_that_comes_late_is_cancelled() -> None:
    """The `def` part of the hook takes longer than the hook has. The coroutine that it returns then must not run on."""
    asked, release, outcome = threading.Event(), threading.Event(), threading.Event()

    def show(info: Any, ctx: FilterContext) -> Any:
        asked.set()
        release.wait(PATIENCE)
        return late()

    class Late:
        def __await__(self) -> Any:
            yield from asyncio.Event().wait().__await__()

        def __del__(self) -> None:
            outcome.set()

    def late() -> Any:
        return Late()

    with SignalingServer(filter_device_info=show, hook_timeout=5) as server, peers_of(server) as peers:
        peers.device()
        with server.clock.frozen() as clock:
            client = peers.pending_client()
            client.receive()
            assert asked.wait(PATIENCE)
            clock.advance(5)
            assert client.receive() == {"error": "Internal error"}
        release.set()
        assert outcome.wait(PATIENCE)


def test_cancelled_coroutine_is_freed_at_once() -> None:
    """Its exception, the task and the coroutine form no cycle, which would keep them until the next collection."""
    started, freed = threading.Event(), threading.Event()

    class Held:
        def __del__(self) -> None:
            freed.set()

    async def show(info: Any, ctx: FilterContext) -> Any:
        held = Held()
        started.set()
        await asyncio.Event().wait()
        return held

    gc.disable()
    try:
        with SignalingServer(filter_device_info=show) as server, peers_of(server) as peers:
            peers.device()
            client = peers.pending_client()
            client.receive()
            assert started.wait(PATIENCE)
            client.close()
            assert freed.wait(PATIENCE)
    finally:
        gc.enable()


def test_async_hook_of_a_loop_that_does_not_run_says_so() -> None:
    async def ice(ctx: IceContext) -> list[Any]:
        return []

    loop = asyncio.new_event_loop()
    server = SignalingServer(ice_servers=ice, hook_timeout=0.2)
    loop.run_until_complete(server.__aenter__())
    try:
        with peers_of(server) as peers:
            assert peers.pending_device().receive() == {"error": "Internal error"}
            wait_until(lambda: server.hook_errors)
            (failure,) = server.hook_errors
            assert isinstance(failure.error, HookTimeoutError)
            assert failure.device_id == "cvd-1"
            assert str(failure.error).endswith(
                "within 0.2 s: the event loop that started the server does not run, "
                "so the coroutine of the hook has not started"
            )
    finally:
        loop.run_until_complete(server.stop_async())
        loop.close()


def test_async_hook_of_a_busy_loop_says_so() -> None:
    async def ice(ctx: IceContext) -> list[Any]:
        return []

    async def main() -> None:
        async with SignalingServer(ice_servers=ice, hook_timeout=0.2) as server:
            with peers_of(server) as peers:  # Synchronous: the loop does not turn.
                assert peers.pending_device().receive() == {"error": "Internal error"}
                wait_until(lambda: server.hook_errors)
                assert "its event loop is busy" in str(server.hook_errors[0].error)

    asyncio.run(main())


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_greenlets_in_place_of_threads_are_refused(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Patched:
        def is_module_patched(self, name: str) -> bool:
            return name == "threading"

        def is_monkey_patched(self, name: str) -> bool:
            return name == "thread"

    module = {"gevent": "gevent.monkey", "eventlet": "eventlet.patcher"}[library]
    monkeypatch.setitem(sys.modules, module, Patched())
    server = SignalingServer(authorize=lambda ctx: None)
    with pytest.raises(UnsupportedError, match=f"{library} has replaced Python's threads.*thread=False"):
        server.start()
    monkeypatch.setattr(Patched, "is_module_patched", lambda *_: False)
    monkeypatch.setattr(Patched, "is_monkey_patched", lambda *_: False)
    with server:
        assert server.is_running
